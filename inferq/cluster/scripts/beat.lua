-- Renew a lease, and end the incarnations whose lease has lapsed.
-- ARGS: node, inc, record (or ''), ttl_ms, expire_ms, bases, max_attempts, grave_ms.
-- Returns {'ok', now, recovered, look} or {'fenced'}; recovered: {{inc, returned, dead}, ...}.
local MOST_AT_ONCE = 4
local now = now_ms()
if not alive(ARGS.inc) then return reply('fenced') end
tick(now)
redis.call('ZADD', P .. 'leases', now + ARGS.ttl_ms, ARGS.inc)
redis.call('ZADD', P .. 'seen', now, ARGS.node)
if ARGS.record ~= '' then redis.call('HSET', P .. 'nodes', ARGS.node, ARGS.record) end

local recovered = {}
local lapsed = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, MOST_AT_ONCE)
for _, inc in ipairs(lapsed) do
  local returned, dead = end_incarnation(inc, now)
  recovered[#recovered + 1] = { inc, returned, dead }
end
local late = 0
for _, inc in ipairs(redis.call('ZRANGE', P .. 'graves', 0, -1)) do
  for _, base in ipairs(ARGS.bases) do late = late + return_staged(base, inc) end
end
redis.call('ZREMRANGEBYSCORE', P .. 'graves', '-inf', now)
for _, node in ipairs(redis.call('ZRANGEBYSCORE', P .. 'seen', '-inf', now - ARGS.expire_ms)) do
  redis.call('HDEL', P .. 'nodes', node)
  redis.call('HDEL', P .. 'states', node)
  redis.call('HDEL', P .. 'stolen', node)
  redis.call('ZREM', P .. 'seen', node)
end
-- An idle node looks once a beat whether something has waited too long at another one.
local look = #recovered > 0 or late > 0
for _, base in ipairs(ARGS.bases) do look = look or waiting_in(base) > 0 end
for shard = 0, shards() - 1 do
  look = look or redis.call('EXISTS', P .. 'load:' .. shard) == 1
end
local largest = redis.call('ZREVRANGE', P .. 'limits', 0, 0, 'WITHSCORES')
return reply('ok', now, recovered, look, tonumber(largest[2] or 0))

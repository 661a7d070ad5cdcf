-- uses: base queues nodes loads records work recovery
-- A node joins with a new fencing token. The name must not be in use by a live process.
-- ARGS: node, record, shards, bases, and what recovery needs. Returns {'ok', inc, now} or {'busy', wait_ms}.
local now = now_ms()
local old = incarnation(ARGS.node)
if old then
  local expiry = tonumber(alive(old) or 0)
  if expiry > now then return reply('busy', expiry - now) end
  end_incarnation(old, now)
end
-- Tokens are never used again, not even after Redis came back empty: nodes may still hold old ones.
redis.call('SET', P .. 'fence', now, 'NX')
local inc = ARGS.node .. '#' .. redis.call('INCR', P .. 'fence')
redis.call('ZADD', P .. 'leases', now + ARGS.lease_ms, inc)
redis.call('ZADD', P .. 'seen', now, ARGS.node)
redis.call('HSET', P .. 'incs', ARGS.node, inc)
redis.call('HSET', P .. 'nodes', ARGS.node, ARGS.record)
redis.call('HSET', P .. 'states', ARGS.node, 'starting')
redis.call('ZREM', P .. 'gone', ARGS.node)
if redis.call('EXISTS', P .. 'shards') == 0 then set_shards(ARGS.shards) end
return reply('ok', inc, now)

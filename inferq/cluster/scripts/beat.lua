-- uses: base queues nodes loads records work recovery
-- Renew a lease, and end the incarnations whose lease has lapsed.
-- ARGS: node, inc, record (or ''), full (count its work anew), release_ms, expire_ms, bases, and what recovery needs.
-- Returns {'ok', now, recovered, look, largest} or {'fenced'}; recovered: {{inc, returned, dead}, ...}.
local MOST_AT_ONCE = 4
local now = now_ms()
if not alive(ARGS.inc) then return refuse(ARGS.inc) end

local function renew()
  tick(now)
  redis.call('ZADD', P .. 'leases', now + ARGS.lease_ms, ARGS.inc)
  redis.call('SREM', P .. 'graced', ARGS.inc)
  redis.call('ZADD', P .. 'seen', now, ARGS.node)
  if ARGS.record ~= '' then redis.call('HSET', P .. 'nodes', ARGS.node, ARGS.record) end
end

local function recover()
  local rows = {}
  local lapsed = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, MOST_AT_ONCE)
  for i, inc in ipairs(lapsed) do
    local returned, dead = end_incarnation(inc, now)
    rows[i] = { inc, returned, dead }
  end
  return rows
end

-- What was handed to processes that had lost their lease.
local function empty_graves()
  local found = false
  for _, inc in ipairs(redis.call('ZRANGE', P .. 'graves', 0, -1)) do
    found = return_staged(inc) > 0 or found
  end
  redis.call('ZREMRANGEBYSCORE', P .. 'graves', '-inf', now)
  return found
end

local function release(node)
  local found = false
  for _, base in ipairs(ARGS.bases) do found = release_queue(base, node) or found end
  return found
end

-- Stock producers may go on sending to a node that has left; some are looked at in each beat.
local function release_gone()
  local found = false
  for _, node in ipairs(redis.call('ZRANGE', P .. 'gone', 0, MOST_AT_ONCE - 1)) do
    found = release(node) or found
    redis.call('ZADD', P .. 'gone', 'XX', fresh_numbers(1), node)
  end
  return found
end

local function forget()
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', P .. 'seen', '-inf', now - ARGS.expire_ms)) do
    release(node)
    for _, hash in ipairs({ 'nodes', 'states', 'stolen', 'stole' }) do redis.call('HDEL', P .. hash, node) end
    redis.call('ZREM', P .. 'gone', node)
    redis.call('ZREM', P .. 'seen', node)
  end
end

-- An idle node looks once a beat whether something has waited too long at another one.
local function has_work()
  for _, base in ipairs(ARGS.bases) do
    note_load(base, ARGS.node)
    if is_waiting(base) or is_waiting(base .. '.' .. ARGS.node) or has_loads(base) then return true end
  end
  return false
end

renew()
local recovered = recover()
local late = empty_graves()
local stranded = release_gone()
forget()
if late or stranded then announce_all() end
if ARGS.full then recount_work(ARGS.inc, ARGS.node, now) end
local largest = redis.call('ZREVRANGE', P .. 'limits:' .. ARGS.bases[1], 0, 0, 'WITHSCORES')
return reply('ok', now, recovered, has_work(), tonumber(largest[2] or 0))

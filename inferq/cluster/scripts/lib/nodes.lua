-- Nodes: leases, bells, and who has nothing to do.

local function alive(inc)
  return redis.call('ZSCORE', P .. 'leases', inc)
end

local function incarnation(node)
  return redis.call('HGET', P .. 'incs', node)
end

-- Bells ---------------------------------------------------------------------------------------
-- A list of messages for a node, which waits for it.

local LOOK = '["look"]'
local MOST_RINGS = 1000
local BELL_TTL_MS = 60000

-- Leave a message for a node; it looks at the queues after each. One that reads none for a long
-- time loses them, and learns from its next beat that there is work.
local function ring(inc, message)
  local bell = P .. 'bell:' .. inc
  if message == LOOK and redis.call('LINDEX', bell, -1) == LOOK then return end
  local count = redis.call('RPUSH', bell, message)
  if count == 1 then redis.call('PEXPIRE', bell, BELL_TTL_MS) end
  if count > MOST_RINGS then redis.call('LPOP', bell) end
end

-- Parked nodes have room and found nothing (more) to take, in the phases that they serve. Those that
-- found the shared prefill queue empty also listen: Redis hands them what comes into its first list,
-- one message for one node.
-- Anybody else who adds work wakes one, who wakes the next if he leaves work. So that nodes that
-- cannot take what is left do not wake each other for ever, only those are woken which had parked
-- before the last work came (`round`). What comes within the reach of a node because others took
-- what was before it, the node finds after its next beat.

local function unpark(inc)
  local was_parked = false
  for _, base in ipairs(ARGS.bases) do
    was_parked = redis.call('ZREM', P .. 'parked:' .. base, inc) == 1 or was_parked
  end
  if was_parked then redis.call('SREM', P .. 'listening', inc) end
end

local function park(inc, bases, listens)
  for _, base in ipairs(bases) do redis.call('ZADD', P .. 'parked:' .. base, fresh_numbers(1), inc) end
  if listens then redis.call('SADD', P .. 'listening', inc) end
end

-- Work is left: wake the next node of this round.
local function pass_on(base)
  while true do
    local first = redis.call('ZRANGE', P .. 'parked:' .. base, 0, 0, 'WITHSCORES')
    if not first[1] then return end
    local round = tonumber(redis.call('GET', P .. 'round:' .. base) or 0)
    if tonumber(first[2]) > round then return end
    unpark(first[1])
    if alive(first[1]) then return ring(first[1], LOOK) end
  end
end

-- Work has come: wake a node.
local function announce(base)
  local last = redis.call('ZREVRANGE', P .. 'parked:' .. base, 0, 0, 'WITHSCORES')
  if not last[1] then return end
  redis.call('SET', P .. 'round:' .. base, last[2])
  pass_on(base)
end

local function announce_all()
  for _, base in ipairs(ARGS.bases) do announce(base) end
end

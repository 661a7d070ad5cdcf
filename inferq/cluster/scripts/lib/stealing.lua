-- Taking from the queues of other nodes.

-- Nodes looked at in one look.
local MOST_VICTIMS = 8
local MOST_OF_A_SHARD = 3

-- How long the first message of a node's queue has waited, in ms.
local function head_waited(base)
  for _, step in ipairs(STEPS) do
    local raw = redis.call('LINDEX', base .. step, -1)
    if raw then
      local e = parse(raw)
      if e.submitted == 0 and not e.plain then
        stamp(e, now)
        redis.call('LSET', base .. step, -1, serialize(e))
      end
      return now - e.submitted
    end
  end
  return 0
end

-- How many requests this node may take from another one: half of what that one has too many, or
-- one that has waited for too long.
local function surplus_of(base, victim, own_load)
  local queued, load = note_load(base, victim)
  if queued == 0 then return 0 end
  if load > ARGS.min_load and load > own_load + 1 then
    return math.max(1, math.floor((load - math.max(ARGS.min_load, own_load)) / 2))
  end
  return head_waited(base .. '.' .. victim) >= ARGS.steal_after_ms and 1 or 0
end

local function steal_from(base, victim, own_load)
  local most = math.min(surplus_of(base, victim, own_load), ARGS.batch)
  if most == 0 then return false end
  take_from(base, victim, { source = victim, is_own = false, most = most })
  note_load(base, victim)
  if #taken == 0 then return false end
  redis.call('HINCRBY', P .. 'stolen', victim, #taken)
  redis.call('HINCRBY', P .. 'stole', ARGS.node, #taken)
  return true
end

-- From the most loaded nodes of each shard, beginning anywhere so that thieves spread, and from any
-- other: the request that waits longest may be at a node with little load.
local function steal(base)
  local own_load = redis.call('HLEN', P .. 'claims:' .. ARGS.inc)
  local count, tried = shards(), 0
  for i = 0, count - 1 do
    local key = load_table(base, (i + now) % count)
    local victims = redis.call('ZREVRANGE', key, 0, MOST_OF_A_SHARD - 1)
    victims[#victims + 1] = redis.call('ZRANDMEMBER', key) or nil
    for _, victim in ipairs(victims) do
      if tried >= MOST_VICTIMS or stopped then return end
      if victim ~= ARGS.node then
        tried = tried + 1
        if steal_from(base, victim, own_load) then return end
      end
    end
  end
end

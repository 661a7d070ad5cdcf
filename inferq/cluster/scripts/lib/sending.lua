-- Messages on their way into queues, and the choice of the node they go to.

-- A placement is a row {base, names, weights, biases, slack, among, unit, tokens}: nodes, best first,
-- chosen by whoever places; the last word is said here, where loads are what they are now.
-- cost = bias + weight * load. routing/placement says the same in Python, and a test compares them.

-- What is known of candidates, read once in a step: {limit, lease, load}; a load as in `unit`.
local known = {}

local function facts_of(base, node, unit)
  local key = base .. unit .. node
  if not known[key] then
    local inc = incarnation(node)
    local field = unit == 'requests' and '#' .. node or node
    known[key] = {
      limit = tonumber(redis.call('ZSCORE', P .. 'limits:' .. base, node) or -1),
      lease = tonumber(inc and alive(inc) or 0),
      load = tonumber(redis.call('HGET', P .. 'work:' .. base, field) or 0),
      field = field,
    }
  end
  return known[key]
end

-- The node that gets a message, '' when none of those named can take it, and its load with it.
local function choose(placement, e, now)
  local base, names, weights, biases, slack, among, unit, tokens = unpack(placement)
  local pending = work_changes[base] or {}
  local able, loads, costs, least = {}, {}, {}, math.huge
  for i, node in ipairs(names) do
    if #able >= among then break end
    local facts = facts_of(base, node, unit)
    if facts.limit >= tokens and facts.lease > now then
      local load = math.max(0, facts.load + (pending[facts.field] or 0))
      local cost = biases[i] + weights[i] * load
      local at = #able + 1
      able[at], loads[at], costs[at] = node, load, cost
      least = math.min(least, cost)
    end
  end
  for i, node in ipairs(able) do
    if costs[i] == least or costs[i] < least + slack then
      return node, loads[i] + (unit == 'requests' and 1 or tokens_of(base, e))
    end
  end
  return '', 0
end

-- Queues that get something in this step, in the order in which they first did.
local outgoing, order = {}, {}

-- Where messages for a node go ('' for all nodes), with what waits there now.
local function queue_for(base, node)
  local name = node == '' and base or base .. '.' .. node
  local queue = outgoing[name]
  if not queue then
    queue = { base = base, node = node, name = name, lengths = {}, waiting = 0, count = 0, lists = {}, first = #STEPS }
    for i, step in ipairs(STEPS) do
      queue.lengths[i] = redis.call('LLEN', name .. step)
      queue.waiting = queue.waiting + queue.lengths[i]
    end
    outgoing[name] = queue
    order[#order + 1] = queue
  end
  return queue
end

local function send(queue, step, e)
  queue.count = queue.count + 1
  queue.first = math.min(queue.first, step)
  queue.lists[step] = queue.lists[step] or {}
  table.insert(queue.lists[step], serialize(e))
  if queue.node ~= '' then count_waiting(queue.base, queue.node, e, 1) end
end

-- Whether new work is within the reach of nodes that pass over what is before it.
local function is_within_reach(queue)
  local ahead = 0
  for step = 1, queue.first do ahead = ahead + queue.lengths[step] end
  return ahead < ARGS.lookahead
end

-- Whether it is more than what Redis hands to nodes that listen.
local function needs_announcing(queue)
  if queue.waiting > 0 then return is_within_reach(queue) end
  if is_decode(queue.base) then return true end
  local first = queue.lists[1]
  local handed = first and math.min(#first, redis.call('SCARD', P .. 'listening')) or 0
  return queue.count > handed
end

local function push(queue)
  local announces = queue.node == '' and needs_announcing(queue)
  for step, raws in pairs(queue.lists) do call_in_parts('LPUSH', queue.name .. STEPS[step], raws) end
  if queue.node ~= '' then
    local _, load = note_load(queue.base, queue.node)
    local inc = incarnation(queue.node)
    if inc and (queue.waiting == 0 or redis.call('ZSCORE', P .. 'parked:' .. queue.base, inc)) then
      unpark(inc)
      ring(inc, LOOK)
    end
    announces = load > ARGS.min_load and is_within_reach(queue)
  end
  if announces then announce(queue.base) end
end

local function push_all()
  for _, queue in ipairs(order) do
    if queue.count > 0 then push(queue) end
  end
  write_work()
end

-- Queues: lists of messages, one for each priority. The head, from which messages are taken, is
-- the right end of a list.

local function is_waiting(base)
  return redis.call('EXISTS', base, base .. STEPS[2], base .. STEPS[3], base .. STEPS[4]) > 0
end

local function waiting_in(base)
  local count = 0
  for _, step in ipairs(STEPS) do count = count + redis.call('LLEN', base .. step) end
  return count
end

-- Those that nobody has looked at come after those that have a place.
local function place_of(e)
  return e.number > 0 and e.number or math.huge
end

-- Sort by place; what has none keeps its order.
local function by_place(list)
  local index = {}
  for i, e in ipairs(list) do index[e] = i end
  table.sort(list, function(a, b)
    local first, second = place_of(a), place_of(b)
    if first ~= second then return first < second end
    return index[a] < index[b]
  end)
end

-- Push to the head of a list, so that the first of `raws` becomes the head.
local function push_head(key, raws)
  local backwards = {}
  for i = #raws, 1, -1 do backwards[#backwards + 1] = raws[i] end
  call_in_parts('RPUSH', key, backwards)
end

-- Return messages to the head of their list, each to its place between those that are there.
local function put_at_head(key, list)
  if #list == 0 then return end
  local last = 0
  for _, e in ipairs(list) do last = math.max(last, place_of(e)) end
  while true do
    local raw = redis.call('LINDEX', key, -1)
    if not raw then break end
    local e = parse(raw)
    if e.number == 0 or e.number > last then break end
    redis.call('RPOP', key)
    list[#list + 1] = e
  end
  by_place(list)
  local raws = {}
  for i, e in ipairs(list) do raws[i] = serialize(e) end
  push_head(key, raws)
end

-- Move a list to the head of another, in order. Returns whether there was anything.
local function move_all(from, to)
  if redis.call('EXISTS', from) == 0 then return false end
  if redis.call('RENAMENX', from, to) == 0 then
    while redis.call('LMOVE', from, to, 'LEFT', 'RIGHT') do end
  end
  return true
end

-- Move all that waits at a node to the head of the shared queue. Returns whether there was anything.
local function release_queue(base, node)
  local own = base .. '.' .. node
  if not is_waiting(own) then return false end
  for _, step in ipairs(STEPS) do move_all(own .. step, base .. step) end
  return true
end

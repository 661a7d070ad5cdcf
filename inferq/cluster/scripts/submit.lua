-- uses: base queues nodes loads records
-- Enqueue requests, all or none. Sending again what was sent with the same token does nothing, so
-- that a producer may repeat a call whose reply it did not get.
-- ARGS: base, node (or ''), origin, token, items, max_waiting, min_load, lookahead, kept_ms.
-- items: {{message, id, step, ttl_ms, prompt, answer}, ...}; step: which of the queue's lists, from 1.
-- Returns {'ok', accepted} or {'duplicate', {id, ...}}. accepted: how many, from the first on; fewer than all when
-- the queue is full.
local now = now_ms()
local items = ARGS.items

-- Sort out which are new. Returns the number of the last that is known, duplicates, and when to
-- count each as submitted: no two requests with one id have the same time.
local function look_up()
  local keys, seen = {}, {}
  local last_known, duplicates, submitted = 0, {}, {}
  for i, item in ipairs(items) do keys[i] = record_key(item[2]) end
  for i, value in ipairs(get_all(keys)) do
    local record, id = unpack_record(value), items[i][2]
    submitted[i] = now
    if seen[id] then
      duplicates[#duplicates + 1] = id
    elseif record and record.origin == ARGS.origin and record.token == ARGS.token then
      last_known, submitted[i] = i, nil
    elseif record and (record.state == 'd' or record.state == 'c' and not alive(record.inc)) then
      submitted[i] = math.max(now, record.submitted + 1)
    elseif record then
      duplicates[#duplicates + 1] = id
    end
    seen[id] = true
  end
  return last_known, duplicates, submitted
end

local last_known, duplicates, submitted = look_up()
if #duplicates > 0 then return reply('duplicate', duplicates) end

local node_inc = ARGS.node ~= '' and incarnation(ARGS.node)
local own = node_inc and redis.call('HGET', P .. 'states', ARGS.node) == 'ready'
local base = own and ARGS.base .. '.' .. ARGS.node or ARGS.base
local lengths, waiting = {}, 0
for i, step in ipairs(STEPS) do
  lengths[i] = redis.call('LLEN', base .. step)
  waiting = waiting + lengths[i]
end
local space = math.max(0, ARGS.max_waiting - waiting)

-- Those before one that is known were promised a place, however full the queue is now.
local accepted, count, first_step = 0, 0, #STEPS
local lists = {}
for i, item in ipairs(items) do
  if submitted[i] then
    if count >= space and i > last_known then break end
    count = count + 1
    local message, id, step, ttl_ms, prompt, answer = unpack(item)
    local record = {
      state = 'q', inc = '', origin = ARGS.origin, token = ARGS.token, submitted = submitted[i],
    }
    redis.call('SET', record_key(id), pack_record(record), 'PX', ttl_ms + ARGS.kept_ms)
    lists[step] = lists[step] or {}
    table.insert(lists[step], serialize({
      number = 0, attempt = 0, prompt = prompt, answer = answer,
      submitted = submitted[i], deadline = submitted[i] + ttl_ms,
      id = id, rest = string.sub(message, 2),
    }))
    first_step = math.min(first_step, step)
  end
  accepted = i
end
if count == 0 then return reply('ok', accepted) end

-- Whether new work is within the reach of nodes that pass over what is before it.
local function is_within_reach()
  local ahead = 0
  for step = 1, first_step do ahead = ahead + lengths[step] end
  return ahead < ARGS.lookahead
end

-- Whether it is more than what Redis hands to nodes that listen.
local function needs_announcing()
  if waiting > 0 then return is_within_reach() end
  local handed = lists[1] and math.min(#lists[1], redis.call('SCARD', P .. 'listening')) or 0
  return count > handed
end

local announces = not own and needs_announcing()
for step, raws in pairs(lists) do call_in_parts('LPUSH', base .. STEPS[step], raws) end
if own then
  local _, load = note_load(ARGS.base, ARGS.node)
  if waiting == 0 or redis.call('ZSCORE', P .. 'parked', node_inc) then
    unpark(node_inc)
    ring(node_inc, LOOK)
  end
  announces = load > ARGS.min_load and is_within_reach()
end
if announces then announce() end
return reply('ok', accepted)

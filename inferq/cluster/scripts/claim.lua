-- Take what a node has room for, and record it as its claims, in one step.
-- ARGS: node, inc, base, own (whether it takes from its own queue), room, batch, lookahead, reserve, order,
--   ageing, steal, min_load, steal_after_ms, max_bytes, largest, park, max_dead.
-- room: {slots, blocks, tokens, prefills, longs, idle, chunked, block_size, reserved, total_blocks, long_from, longest}
-- Returns {'ok', now, taken, blocked, parked, is_empty, more} or {'fenced'}.
-- taken: {{number, attempt, again, source, prompt, answer, raw}, ...}; source: '' or the node it was stolen from.
if not alive(ARGS.inc) then return reply('fenced') end

local now = now_ms()
local room = ARGS.room
local taken, buried = {}, 0
local passed, blocked, stopped = 0, '', false
-- Without a header a message is taken for English in JSON and base64: about 5 bytes a token.
local BYTES_PER_TOKEN = 5
local USUAL_ANSWER = 128

local function sizes(e)
  local prompt = e.prompt > 0 and e.prompt or math.max(1, math.floor(#(e.rest or e.plain) / BYTES_PER_TOKEN))
  return prompt, e.answer > 0 and e.answer or USUAL_ANSWER
end

-- The admission rule; routing/admission.py says the same in Python, and a test compares them.
local function blocks_of(prompt)
  return math.min(math.ceil(prompt / room.block_size) + room.reserved, room.total_blocks)
end

local function fits(prompt)
  if room.slots < 1 or blocks_of(prompt) > room.blocks then return false end
  if not room.chunked then return room.idle or prompt <= room.tokens end
  return room.prefills > 0 and (room.longs > 0 or prompt <= room.long_from)
end

local function spend(prompt)
  room.slots = room.slots - 1
  room.blocks = room.blocks - blocks_of(prompt)
  room.tokens = room.tokens - prompt
  room.prefills = room.prefills - 1
  if prompt > room.long_from then room.longs = room.longs - 1 end
  room.idle = false
end

local function identity(e, raw)
  return e.id ~= '' and e.id or redis.sha1hex(raw)
end

-- One node keeps room for the first that does not fit; the others go on past it.
local function reserved_here(who)
  if who ~= ARGS.reserve then return false end
  local key = P .. 'reserved:' .. who
  if redis.call('SET', key, ARGS.inc, 'NX', 'PX', 5000) then return true end
  if redis.call('GET', key) ~= ARGS.inc then return false end
  redis.call('PEXPIRE', key, 5000)
  return true
end

-- What to do with a message: 'take', 'leave', or 'forward' from an own queue to nodes that can hold it.
local function judge(e, raw, is_own)
  if #raw > ARGS.max_bytes then return 'bury' end
  if e.deadline > 0 and e.deadline <= now then return 'take' end
  local prompt, answer = sizes(e)
  local total = prompt + answer
  if total > room.longest then
    -- Nobody can hold it: the task says so to its origin, which costs the engine nothing.
    if e.prompt > 0 and total > ARGS.largest then return 'take' end
    if total <= ARGS.largest then return is_own and 'forward' or 'leave' end
    prompt = math.min(prompt, room.longest)
  end
  if not stopped and fits(prompt) then
    spend(prompt)
    return 'take'
  end
  if passed == 0 then
    blocked = identity(e, raw)
    if reserved_here(blocked) then stopped = true end
  end
  return 'leave'
end

local function accept(e, key, source)
  taken[#taken + 1] = { e = e, key = key, source = source }
end

-- In the order in which to look at them: as they came, or the shortest first, where each second of
-- waiting makes a prompt count as shorter.
local function in_order(window)
  if ARGS.order ~= 'spt_ageing' then return window end
  local ranked = {}
  for i, item in ipairs(window) do
    local waited_s = item.e.submitted > 0 and math.max(0, now - item.e.submitted) / 1000 or 0
    ranked[i] = { item = item, place = i, score = (sizes(item.e)) - ARGS.ageing * waited_s }
  end
  table.sort(ranked, function(a, b)
    if a.score ~= b.score then return a.score < b.score end
    return a.place < b.place
  end)
  local items = {}
  for i, rank in ipairs(ranked) do items[i] = rank.item end
  return items
end

local function pop(key, count)
  local window = {}
  for i, raw in ipairs(redis.call('RPOP', key, count) or {}) do
    window[i] = { raw = raw, e = parse(raw) }
  end
  return window
end

-- Take from one list; `shared_key` is where its messages return to. Returns false to stop looking.
local function take_from_list(key, shared_key, source, is_own, most)
  local left = {}
  local went_on = true
  while went_on and #taken < most and passed < ARGS.lookahead do
    local count = most - #taken
    if ARGS.order == 'spt_ageing' then count = math.max(count, ARGS.lookahead) end
    if room.slots < 1 then break end
    local window = pop(key, count)
    if #window == 0 then break end
    for _, item in ipairs(in_order(window)) do
      local verdict = 'not judged'
      if went_on and #taken < most and room.slots > 0 then verdict = judge(item.e, item.raw, is_own) end
      if verdict == 'take' then
        item.gone = true
        accept(item.e, shared_key, source)
      elseif verdict == 'forward' then
        item.gone = true
        redis.call('RPUSH', shared_key, item.raw)
      elseif verdict == 'bury' then
        item.gone = true
        buried = buried + 1
        bury(item.raw, item.e.id, key, 'too_large', item.e.attempt, ARGS.node, 'larger than ' .. ARGS.max_bytes .. ' bytes')
      elseif verdict == 'leave' then
        passed = passed + 1
        if stopped or passed >= ARGS.lookahead then went_on = false end
      end
    end
    for _, item in ipairs(window) do
      if not item.gone then left[#left + 1] = item.raw end
    end
  end
  if #left > 0 then
    local raws = {}
    for i = #left, 1, -1 do raws[#raws + 1] = left[i] end
    call_in_parts('RPUSH', key, raws)
  end
  return went_on and not stopped
end

local function take_from(base, source, is_own, most)
  for _, step in ipairs(STEPS) do
    if #taken >= most or room.slots < 1 then return end
    if not take_from_list(base .. step, ARGS.base .. step, source, is_own, most) then return end
  end
end

-- Messages that BLMOVE handed over: what does not fit returns to the place it came from.
local function take_staged()
  local key = P .. 'staged:' .. ARGS.inc
  if redis.call('EXISTS', key) == 1 then
    while redis.call('LMOVE', key, ARGS.base, 'LEFT', 'RIGHT') do end
  end
end

-- How long the first message of a node's queue has waited, in ms.
local function head_waited(base)
  for _, step in ipairs(STEPS) do
    local raw = redis.call('LINDEX', base .. step, -1)
    if raw then
      local e = parse(raw)
      if e.submitted == 0 and not e.plain then
        -- A stock producer's: its time is counted from now on.
        e.submitted = now
        redis.call('LSET', base .. step, -1, serialize(e))
      end
      return now - e.submitted
    end
  end
  return 0
end

-- How many requests this node may take from another one: half of what that one has too many.
local function surplus_of(victim, own_load)
  local queued, load = load_of(ARGS.base, victim)
  note_load(victim, queued, load)
  if queued == 0 then return 0 end
  if load > ARGS.min_load and load > own_load + 1 then
    return math.max(1, math.floor((load - math.max(ARGS.min_load, own_load)) / 2))
  end
  return head_waited(ARGS.base .. '.' .. victim) >= ARGS.steal_after_ms and 1 or 0
end

local function steal_from(victim, own_load)
  local most = math.min(surplus_of(victim, own_load), ARGS.batch)
  if most == 0 then return false end
  take_from(ARGS.base .. '.' .. victim, victim, false, most)
  if #taken == 0 then return false end
  redis.call('HINCRBY', P .. 'stolen', victim, #taken)
  local queued, load = load_of(ARGS.base, victim)
  note_load(victim, queued, load)
  if queued > 0 and load > ARGS.min_load then ring_parked() end
  return true
end

-- The most loaded nodes of each shard, beginning anywhere, so that thieves spread.
local MOST_VICTIMS = 3
local function steal()
  local own_load = redis.call('HLEN', P .. 'claims:' .. ARGS.inc)
  local count = shards()
  for i = 0, count - 1 do
    local key = P .. 'load:' .. (i + now) % count
    for _, victim in ipairs(redis.call('ZREVRANGE', key, 0, MOST_VICTIMS - 1)) do
      if victim ~= ARGS.node and steal_from(victim, own_load) then return end
    end
    -- The one that waits longest may be at a node with little load.
    local least = redis.call('ZRANGE', key, 0, 0)[1]
    if least and least ~= ARGS.node and steal_from(least, own_load) then return end
  end
end

local function number_taken()
  local missing = 0
  for _, item in ipairs(taken) do
    item.again = item.e.number > 0
    if not item.again then missing = missing + 1 end
  end
  if missing == 0 then return end
  local last = redis.call('INCRBY', P .. 'seq', missing)
  local number = last - missing
  for _, item in ipairs(taken) do
    if not item.again then
      number = number + 1
      item.e.number = number
    end
  end
end

-- Whether a request was cancelled while it waited; its record says from now on who has it.
local function is_cancelled(e)
  local record = record_of(e.id)
  if not record then return false end
  if record.state == 'c' then
    redis.call('DEL', P .. 'req:' .. e.id)
    return true
  end
  record.state, record.inc = 'r', ARGS.inc
  save_record(e.id, record)
  return false
end

local function record_taken()
  number_taken()
  local fields, rows = {}, {}
  for _, item in ipairs(taken) do
    if not is_cancelled(item.e) then
      local raw = serialize(item.e)
      fields[#fields + 1] = item.e.number
      fields[#fields + 1] = item.key .. '\n' .. raw
      rows[#rows + 1] = {
        item.e.number, item.e.attempt, item.again, item.source, item.e.prompt, item.e.answer, raw,
      }
    end
  end
  if #fields > 0 then call_in_parts('HSET', P .. 'claims:' .. ARGS.inc, fields) end
  return rows
end

redis.call('SREM', P .. 'parked', ARGS.inc)
take_staged()
if ARGS.own then
  local base = ARGS.base .. '.' .. ARGS.node
  take_from(base, '', true, ARGS.batch)
  if #taken > 0 then
    local queued, load = load_of(ARGS.base, ARGS.node)
    note_load(ARGS.node, queued, load + #taken)
  end
end
if not stopped then take_from(ARGS.base, '', false, ARGS.batch) end
if #taken == 0 and not stopped and room.slots > 0 and ARGS.steal then steal() end
local rows = record_taken()

-- A node that found nothing although it has room is woken when there is something for it: by
-- blocking on the first list when the shared queue is empty, else by its bell.
local more = #taken >= ARGS.batch or buried > 0 or #rows < #taken
local is_empty = waiting_in(ARGS.base) == 0
local parked = ARGS.park and not more and #taken == 0 and room.slots > 0
if parked then redis.call('SADD', P .. 'parked', ARGS.inc) end
if not is_empty then nudge(ARGS.base) end
return reply('ok', now, rows, blocked, parked, is_empty, more)

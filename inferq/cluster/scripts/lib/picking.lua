-- Which messages of a queue a node takes: those that fit, in order, past some that do not.

local now = now_ms()
-- A look's answer is one piece of memory, here and at the node.
local MOST_BYTES = 33554432
local RESERVATION_MS = 5000
local TOO_LARGE = 'larger than limits.max_message_bytes: ' .. ARGS.max_bytes

-- What came of this look so far. `taken`: {e, key, source}. `blocked`: the first message that does
-- not fit. `stopped`: room is kept for it, so nothing else is taken.
local taken, buried, forwarded, bytes = {}, 0, {}, 0
local blocked, stopped = '', false

local function identity(e)
  return e.id ~= '' and e.id or string.format('#%d', e.number)
end

-- One node keeps room for the first that does not fit; the others go on past it.
local function is_reserved(who)
  if who ~= ARGS.reserve then return false end
  local key = P .. 'reserved:' .. who
  if redis.call('SET', key, ARGS.inc, 'NX', 'PX', RESERVATION_MS) then return true end
  if redis.call('GET', key) ~= ARGS.inc then return false end
  redis.call('PEXPIRE', key, RESERVATION_MS)
  return true
end

-- The longest request that some node can hold. A node learns it with its beat; before a request is
-- given up, those that have joined since count, too.
local largest_now = {}
local function largest(base)
  if not largest_now[base] then
    local top = redis.call('ZREVRANGE', P .. 'limits:' .. base, 0, 0, 'WITHSCORES')
    largest_now[base] = math.max(is_decode(base) and 0 or ARGS.largest, tonumber(top[2] or 0))
  end
  return largest_now[base]
end

-- Tokens that a request needs on this node. One that is handed off after its prefill leaves with
-- its first token.
local function needed_here(scan, prompt, answer)
  return prompt + (room.hands_off and not scan.is_prefilled and 1 or answer)
end

-- What to do with a message: 'take', 'leave', 'forward' from the node's own queue to nodes that
-- can hold it, or the reason why nobody can ever take it.
local function judge(e, size, scan)
  if e.plain then return 'malformed' end
  if size > ARGS.max_bytes then return 'too_large' end
  if e.deadline <= now then return 'take' end
  local prompt, answer = sizes(e)
  local needed = needed_here(scan, prompt, answer)
  if needed > room.longest then
    if needed <= largest(scan.shared) then return scan.is_own and 'forward' or 'leave' end
    -- Nobody can hold it: the task says so to its origin, which costs the engine nothing.
    if e.prompt > 0 then return 'take' end
    prompt = math.min(prompt, room.longest)
  end
  if fits(prompt, scan.is_prefilled) then
    spend(prompt, scan.is_prefilled)
    return 'take'
  end
  if blocked == '' then
    blocked = identity(e)
    stopped = is_reserved(blocked)
  end
  return 'leave'
end

-- In the order in which to look at them: as they came, or the shortest first, where each second of
-- waiting makes a prompt count as shorter.
local function in_order(window)
  if ARGS.order ~= 'spt_ageing' then return window end
  local ranked = {}
  for i, item in ipairs(window) do
    local waited_s = math.max(0, now - item.e.submitted) / 1000
    local prompt = item.e.plain and 0 or sizes(item.e)
    ranked[i] = { item = item, place = i, score = prompt - ARGS.ageing * waited_s }
  end
  table.sort(ranked, function(a, b)
    if a.score ~= b.score then return a.score < b.score end
    return a.place < b.place
  end)
  local items = {}
  for i, rank in ipairs(ranked) do items[i] = rank.item end
  return items
end

-- Pop some messages, and note the order in which they were: what is passed over keeps its place
-- before all that is behind it, and so does what is taken and comes back.
local function pop_window(key, count)
  local window, unseen = {}, 0
  for i, raw in ipairs(redis.call('RPOP', key, count) or {}) do
    local e = parse(raw)
    window[i] = { e = e, size = #raw }
    stamp(e, now)
    if e.number == 0 then unseen = unseen + 1 end
  end
  if unseen == 0 then return window end
  local number = fresh_numbers(unseen)
  for _, item in ipairs(window) do
    if item.e.number == 0 then
      item.e.number = 2 * number
      number = number + 1
    end
  end
  return window
end

local function wants_more(scan)
  return not stopped and room.slots > 0 and bytes < MOST_BYTES
    and #taken < scan.most and scan.passed < ARGS.lookahead
end

-- Do with a message what is to be done; returns whether it is gone from its list.
local function settle_item(scan, item, key, shared_key)
  local verdict = judge(item.e, item.size, scan)
  if verdict ~= 'leave' and scan.owner then count_waiting(scan.shared, scan.owner, item.e, -1) end
  if verdict == 'take' then
    bytes = bytes + item.size
    taken[#taken + 1] = { e = item.e, key = shared_key, base = scan.shared, source = scan.source }
  elseif verdict == 'forward' then
    forwarded[scan.shared] = true
    scan.forward[#scan.forward + 1] = item.e
  elseif verdict == 'leave' then
    scan.passed = scan.passed + 1
    return false
  else
    buried = buried + 1
    bury(item.e, key, verdict, verdict == 'too_large' and TOO_LARGE or 'no JSON object', ARGS.node, '')
  end
  return true
end

local function take_from_list(scan, step)
  local key, shared_key = scan.base .. step, scan.shared .. step
  local left = {}
  scan.forward = {}
  while wants_more(scan) do
    local count = math.min(scan.most - #taken, room.slots)
    if ARGS.order == 'spt_ageing' then count = math.max(count, ARGS.lookahead) end
    local window = pop_window(key, count)
    if #window == 0 then break end
    for _, item in ipairs(in_order(window)) do
      item.gone = wants_more(scan) and settle_item(scan, item, key, shared_key)
    end
    for _, item in ipairs(window) do
      if not item.gone then left[#left + 1] = serialize(item.e) end
    end
  end
  if #left > 0 then push_head(key, left) end
  put_at_head(shared_key, scan.forward)
end

-- Take from a queue: the node's own (`is_own`), another node's (`source`), or the shared one, all of
-- the phase whose shared queue is `shared`. `owner`: whose queue it is.
-- `most`: how much may be taken in this look, with what was taken before.
local function take_from(shared, owner, scan)
  scan.shared, scan.owner = shared, owner
  scan.base = owner and shared .. '.' .. owner or shared
  scan.passed, scan.is_prefilled = 0, is_decode(shared)
  for _, step in ipairs(STEPS) do
    if not wants_more(scan) then return end
    take_from_list(scan, step)
  end
end

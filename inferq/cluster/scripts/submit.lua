-- uses: base queues nodes loads records work sending
-- Enqueue requests, all or none. Sending again what was sent with the same token does nothing, so
-- that a producer may repeat a call whose reply it did not get.
-- ARGS: base, bases, node (or ''), origin, token, items, placements, max_waiting, min_load, lookahead, counts, kept_ms.
-- items: {{message, id, step, ttl_ms, prompt, answer, placement}, ...}; step: which of the queue's lists, from 1;
-- placement: which of the placements (see lib/sending.lua) says where it goes, 0 for the shared queue.
-- Returns {'ok', accepted, placed} or {'duplicate', {id, ...}}. accepted: how many, from the first on; fewer than all
-- when a queue is full. placed: {{node, load}, ...}: where those with a placement went ('' for the shared queue), and
-- the load there now.
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

local is_ready = ARGS.node ~= '' and incarnation(ARGS.node)
  and redis.call('HGET', P .. 'states', ARGS.node) == 'ready'
local beside = is_ready and ARGS.node or ''

-- Those before one that is known were promised a place, however full the queue is now.
local accepted, placed = 0, {}
for i, item in ipairs(items) do
  local message, id, step, ttl_ms, prompt, answer, placement = unpack(item)
  if submitted[i] then
    local e = {
      number = 0, attempt = 0, prompt = prompt, answer = answer,
      submitted = submitted[i], deadline = submitted[i] + ttl_ms,
      id = id, rest = string.sub(message, 2),
    }
    local node, load = beside, 0
    if placement > 0 then node, load = choose(ARGS.placements[placement], e, now) end
    local queue = queue_for(ARGS.base, node)
    if queue.waiting + queue.count >= ARGS.max_waiting and i > last_known then break end
    if placement > 0 then placed[#placed + 1] = { node, load } end
    redis.call('SET', record_key(id), pack_record({
      state = 'q', inc = '', origin = ARGS.origin, token = ARGS.token, submitted = submitted[i],
    }), 'PX', ttl_ms + ARGS.kept_ms)
    send(queue, step, e)
  end
  accepted = i
end
push_all()
return reply('ok', accepted, placed)

-- uses: base queues nodes loads records work recovery sending
-- Claims go on in the other phase: a claim ends and its request waits again, in one step.
-- ARGS: node, inc, items, placements, min_load, lookahead, counts, bases, and what recovery needs.
-- items: {{claim, base, message, prompt, answer, again, holds, stream, placement}, ...}; base: of the queue it goes to;
-- again: it starts anew, as its next attempt; holds: this node works on for it, beside the one that takes it next;
-- stream: of its outputs, or ''; placement: as in submit.
-- Returns {'ok', placed} or {'fenced'}; placed: {node, load} for each: where it went ('' for the shared queue), and the
-- load there now; false when it went nowhere.
if not alive(ARGS.inc) then return refuse(ARGS.inc) end
local now = now_ms()
local claims = P .. 'claims:' .. ARGS.inc

-- Which list of a queue a shared list is, from 1.
local function step_of(key)
  for _, base in ipairs(ARGS.bases) do
    for i, step in ipairs(STEPS) do
      if key == base .. step then return i end
    end
  end
  return 1
end

-- Whether a request may go on; if not, what is left of it is tidied away.
local function goes_on(record, e, key, again, stream)
  local verdict = standing(record, e, ARGS.inc)
  if verdict == 'duplicate' then return false end
  if verdict == 'cancelled' or stream ~= '' and redis.call('EXISTS', stream) == 0 then
    if record then end_record(e.id, record) end
    return false
  end
  if again and e.attempt + 1 > ARGS.max_attempts then
    local detail = 'it was started ' .. e.attempt + 1 .. ' times and did not end'
    bury(e, key, 'attempts', detail, ARGS.node, ARGS.inc)
    return false
  end
  return true
end

local function hop(item)
  local claim, base, message, prompt, answer, again, holds, stream, placement = unpack(item)
  local value = redis.call('HGET', claims, claim)
  if not value then return false end
  redis.call('HDEL', claims, claim)
  local key, raw = split_claim(value)
  local e = parse(raw)
  local record = record_of(e.id)
  if not goes_on(record, e, key, again, stream) then return false end
  local next_e = {
    number = 0, attempt = e.attempt + (again and 1 or 0), prompt = prompt, answer = answer,
    submitted = e.submitted, deadline = e.deadline, id = e.id, rest = string.sub(message, 2),
  }
  local node, load = '', 0
  if placement > 0 then node, load = choose(ARGS.placements[placement], next_e, now) end
  if record then
    dismiss_holder(e.id, record)
    record.state, record.inc, record.holder = 'q', '', holds and ARGS.inc or ''
    record.phase = is_decode(base) and 2 or 1
    save_record(e.id, record)
    if holds then redis.call('SADD', P .. 'holding:' .. ARGS.inc, e.id) end
  end
  send(queue_for(base, node), step_of(key), next_e)
  return { node, load }
end

local placed, ended = {}, {}
for i, item in ipairs(ARGS.items) do
  placed[i] = hop(item)
  ended[i] = item[1]
end
release_pledges(ARGS.inc, ARGS.node, ended)
push_all()
return reply('ok', placed)

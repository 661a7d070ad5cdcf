-- uses: base queues nodes loads records work recovery admission picking stealing
-- Take what a node has room for, and record it as its claims, in one step.
-- ARGS: node, inc, bases, serves (those of the bases whose phase the node serves), take (false: only return what it was
--   handed), room, batch, lookahead, reserve, order, ageing, min_load, steal_after_ms, max_bytes, largest, counts,
--   and what recovery needs.
-- Returns {'ok', now, taken, blocked, parked, is_empty, listens, more} or {'fenced'}.
-- taken: {{claim, attempt, again, source, id, prompt, answer, submitted, deadline, base, raw}, ...}; source: '' or the
--   node it was stolen from; base: the shared queue of its phase. is_empty: nothing waits that room would help to
--   take. listens: Redis is to hand over what comes into the first list of the shared prefill queue.
if not alive(ARGS.inc) then return refuse(ARGS.inc) end

local function records_of(items)
  local keys, ids = {}, {}
  for _, item in ipairs(items) do
    if item.e.id ~= '' then
      ids[#ids + 1] = item.e.id
      keys[#keys + 1] = record_key(item.e.id)
    end
  end
  local records = {}
  for i, value in ipairs(get_all(keys)) do
    -- One table for an id, so that the second message with it sees what the first has done.
    records[ids[i]] = records[ids[i]] or unpack_record(value)
  end
  return records
end

-- Whether a message may be run. If so, its record says from now on who does.
local function admit(item, record)
  local verdict = standing(record, item.e, '')
  if verdict == 'cancelled' then
    end_record(item.e.id, record)
    return false
  elseif verdict == 'duplicate' then
    write_letter(item.e, item.key, 'duplicate', 'another request has this id', ARGS.node)
    return false
  end
  if record then
    -- What its message says of the other half does not hold for this attempt.
    if record.holder == LOST then item.e.attempt, record.holder = item.e.attempt + 1, '' end
    record.state, record.inc = 'r', ARGS.inc
    save_record(item.e.id, record)
  end
  return true
end

local function record_taken()
  local fields, pledges, rows = {}, {}, {}
  if #taken == 0 then return rows end
  local claim = fresh_numbers(#taken)
  local records = records_of(taken)
  for _, item in ipairs(taken) do
    local e = item.e
    if admit(item, records[e.id]) then
      local again = e.number % 2 == 1
      if not again then e.number = e.number + 1 end
      local raw = serialize(e)
      fields[#fields + 1] = claim
      fields[#fields + 1] = pack_claim(item.key, raw)
      rows[#rows + 1] = {
        claim, e.attempt, again, item.source, e.id, e.prompt, e.answer, e.submitted, e.deadline, item.base, raw,
      }
      if ARGS.counts then
        pledges[#pledges + 1] = claim
        pledges[#pledges + 1] = pack_pledge(item.base, e, now)
        change_work(item.base, ARGS.node, tokens_of(item.base, e), 1)
      end
      claim = claim + 1
    end
  end
  call_in_parts('HSET', P .. 'claims:' .. ARGS.inc, fields)
  call_in_parts('HSET', P .. 'pledged:' .. ARGS.inc, pledges)
  return rows
end

-- Which of its phases a node looks at first: the one whose shared queue has waited longest.
local function neediest_first()
  local serves = {}
  for i, base in ipairs(ARGS.serves) do serves[i] = base end
  if #serves > 1 and head_waited(serves[2]) > head_waited(serves[1]) then
    serves[1], serves[2] = serves[2], serves[1]
  end
  return serves
end

-- From the node's own queues, then the shared ones, then other nodes'. Returns the phases in whose own
-- queue something waited.
local function take_all(serves)
  local had_own = {}
  for _, base in ipairs(serves) do
    if is_waiting(base .. '.' .. ARGS.node) then
      had_own[#had_own + 1] = base
      take_from(base, ARGS.node, { source = '', is_own = true, most = ARGS.batch })
    end
  end
  for _, base in ipairs(serves) do take_from(base, nil, { source = '', is_own = false, most = ARGS.batch }) end
  for _, base in ipairs(serves) do
    if #taken == 0 and room.slots > 0 and not stopped then steal(base) end
  end
  return had_own
end

-- With what it took from elsewhere a node may have become one that is stolen from.
local function is_exposed(base)
  local before = noted_load(base, ARGS.node)
  local queued, load = note_load(base, ARGS.node)
  return queued > 0 and before <= ARGS.min_load and load > ARGS.min_load
end

unpark(ARGS.inc)
local handed = return_staged(ARGS.inc)
local serves = neediest_first()
local had_own = ARGS.take and take_all(serves) or {}
local rows = record_taken()
write_work()
local exposed = {}
for _, base in ipairs(had_own) do exposed[base] = is_exposed(base) end

-- Wake others where work is left. Returns whether something waits in shared queues, and at nodes.
local function leave_rest()
  local waits, elsewhere = {}, false
  for _, base in ipairs(ARGS.bases) do
    waits[base] = is_waiting(base)
    local at_nodes = has_loads(base)
    if waits[base] or at_nodes then
      local news = forwarded[base] or exposed[base] or handed > 0 and base == ARGS.bases[1]
      if news then announce(base) else pass_on(base) end
    end
  end
  for _, base in ipairs(serves) do elsewhere = elsewhere or has_loads(base) end
  return waits, elsewhere
end

local waits, elsewhere = leave_rest()
local is_empty, listens = true, false
for _, base in ipairs(serves) do
  is_empty = is_empty and not waits[base]
  listens = listens or base == ARGS.bases[1] and not waits[base]
end
local dropped = #taken - #rows
-- Having taken something it did not look at other nodes: there may be more.
local progress = buried > 0 or dropped > 0 or bytes >= MOST_BYTES or #taken >= ARGS.batch
  or #taken > 0 and elsewhere
-- What was dropped has left its slot.
local more = ARGS.take and progress and room.slots + dropped > 0
local parked = ARGS.take and not more and room.slots > 0
if parked then park(ARGS.inc, serves, listens) end
return reply('ok', now, rows, blocked, parked, is_empty, parked and listens, more)

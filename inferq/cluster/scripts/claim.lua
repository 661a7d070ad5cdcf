-- uses: base queues nodes loads records recovery admission picking stealing
-- Take what a node has room for, and record it as its claims, in one step.
-- ARGS: node, inc, base, bases, take (false: only return what it was handed), room, batch, lookahead, reserve,
--   order, ageing, min_load, steal_after_ms, max_bytes, largest, request_ttl_ms, kept_ms, max_dead, max_letter_bytes.
-- Returns {'ok', now, taken, blocked, parked, is_empty, more} or {'fenced'}.
-- taken: {{claim, attempt, again, source, id, prompt, answer, submitted, deadline, raw}, ...}; source: '' or the
--   node it was stolen from.
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
    record.state, record.inc = 'r', ARGS.inc
    save_record(item.e.id, record)
  end
  return true
end

local function record_taken()
  local fields, rows = {}, {}
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
        claim, e.attempt, again, item.source, e.id, e.prompt, e.answer, e.submitted, e.deadline, raw,
      }
      claim = claim + 1
    end
  end
  call_in_parts('HSET', P .. 'claims:' .. ARGS.inc, fields)
  return rows
end

-- From the node's own queue, then the shared one, then other nodes'.
local function take_all()
  local own = ARGS.base .. '.' .. ARGS.node
  local had_own = is_waiting(own)
  if had_own then take_from(own, { source = '', is_own = true, most = ARGS.batch }) end
  take_from(ARGS.base, { source = '', is_own = false, most = ARGS.batch })
  if #taken == 0 and room.slots > 0 and not stopped then steal() end
  return had_own
end

unpark(ARGS.inc)
local handed = return_staged(ARGS.base, ARGS.inc)
local had_own = ARGS.take and take_all()
local rows = record_taken()
-- With what it took from elsewhere a node may have become one that is stolen from.
local exposed = false
if had_own then
  local before = noted_load(ARGS.node)
  local queued, load = note_load(ARGS.base, ARGS.node)
  exposed = queued > 0 and before <= ARGS.min_load and load > ARGS.min_load
end

local is_empty = not is_waiting(ARGS.base)
local elsewhere = has_loads()
local dropped = #taken - #rows
-- Having taken something it did not look at other nodes: there may be more.
local progress = buried > 0 or dropped > 0 or bytes >= MOST_BYTES or #taken >= ARGS.batch
  or #taken > 0 and elsewhere
-- What was dropped has left its slot.
local more = ARGS.take and progress and room.slots + dropped > 0
if not is_empty or elsewhere then
  if handed + forwarded > 0 or exposed then announce() else pass_on() end
end
local parked = ARGS.take and not more and room.slots > 0
if parked then park(ARGS.inc, is_empty) end
return reply('ok', now, rows, blocked, parked, is_empty, more)

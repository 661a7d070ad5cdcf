-- What all scripts share. `ARGS` is the one argument, a msgpack map; `P` the prefix of the topic's keys.
-- Every script is one atomic step: no other command runs between its lines.

local ARGS = cmsgpack.unpack(ARGV[1])
local P = ARGS.prefix
-- Kombu keeps each priority but 0 in a list of its own; these are its suffixes, most urgent first.
local STEPS = { '', '\6\0223', '\6\0226', '\6\0229' }
-- Lua passes at most some thousand arguments to a call.
local MOST_ARGUMENTS = 2000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function reply(...)
  return cmsgpack.pack({ ... })
end

-- Call a command with many arguments, some at a time.
local function call_in_parts(command, key, arguments)
  for first = 1, #arguments, MOST_ARGUMENTS do
    local last = math.min(first + MOST_ARGUMENTS - 1, #arguments)
    redis.call(command, key, unpack(arguments, first, last))
  end
end

-- Envelopes -----------------------------------------------------------------------------------
-- A stock message in JSON, which may begin with our own key. Only that is ever parsed here.

local ENVELOPE = '^{"inferq": %[(%d+), (%d+), (%d+), (%d+), (%d+), (%d+), "([^"]*)"%], '
local MOST_DIGITS = 15

local function parse(raw)
  local _, stop, number, attempt, prompt, answer, submitted, deadline, id = string.find(raw, ENVELOPE)
  if stop then
    for _, digits in ipairs({ number, attempt, prompt, answer, submitted, deadline }) do
      if #digits > MOST_DIGITS then stop = nil end
    end
  end
  if stop then
    return {
      number = tonumber(number), attempt = tonumber(attempt),
      prompt = tonumber(prompt), answer = tonumber(answer),
      submitted = tonumber(submitted), deadline = tonumber(deadline),
      id = id, rest = string.sub(raw, stop + 1),
    }
  end
  local envelope = {
    number = 0, attempt = 0, prompt = 0, answer = 0, submitted = 0, deadline = 0, id = '',
  }
  -- What does not even begin like JSON cannot carry our key: it is kept as it is.
  if string.sub(raw, 1, 1) == '{' then envelope.rest = string.sub(raw, 2) else envelope.plain = raw end
  return envelope
end

local function serialize(e)
  if e.plain then return e.plain end
  return string.format('{"inferq": [%d, %d, %d, %d, %d, %d, "%s"], ',
    e.number, e.attempt, e.prompt, e.answer, e.submitted, e.deadline, e.id) .. e.rest
end

-- Queues --------------------------------------------------------------------------------------

local function waiting_in(base)
  local count = 0
  for _, step in ipairs(STEPS) do count = count + redis.call('LLEN', base .. step) end
  return count
end

-- Return claimed messages to the head of their list, oldest first, between others that were
-- claimed before. `list` holds envelopes in ascending order of their numbers.
local function put_at_head(key, list)
  local last = list[#list].number
  while true do
    local raw = redis.call('LINDEX', key, -1)
    if not raw then break end
    local e = parse(raw)
    if e.number == 0 or e.number > last then break end
    redis.call('RPOP', key)
    list[#list + 1] = e
  end
  table.sort(list, function(a, b) return a.number < b.number end)
  local raws = {}
  for i = #list, 1, -1 do raws[#raws + 1] = serialize(list[i]) end
  call_in_parts('RPUSH', key, raws)
end

-- Idle nodes block on the first list of the shared queue only. When it is empty and another one
-- is not, move one message there: whoever it wakes looks at all lists.
local function nudge(base)
  if redis.call('SCARD', P .. 'parked') == 0 or redis.call('LLEN', base) > 0 then return end
  for i = 2, #STEPS do
    if redis.call('LMOVE', base .. STEPS[i], base, 'RIGHT', 'RIGHT') then return end
  end
end

-- Move all that waits at a node to the head of the shared queue, in order.
local function release_queue(base, node)
  for _, step in ipairs(STEPS) do
    repeat
      local moved = redis.call('LMOVE', base .. '.' .. node .. step, base .. step, 'LEFT', 'RIGHT')
    until not moved
  end
end

-- Nodes ---------------------------------------------------------------------------------------

local function alive(inc)
  return redis.call('ZSCORE', P .. 'leases', inc)
end

local function incarnation(node)
  return redis.call('HGET', P .. 'incs', node)
end

-- Leave a message for a node. A node that has unread ones will look anyway.
local function ring(inc, message)
  local bell = P .. 'bell:' .. inc
  if message ~= '["look"]' or redis.call('LLEN', bell) == 0 then redis.call('RPUSH', bell, message) end
end

-- Wake one node that waits for work, and no more: it wakes the next if work is left.
local function ring_parked()
  while true do
    local inc = redis.call('SPOP', P .. 'parked')
    if not inc then return end
    if alive(inc) then return ring(inc, '["look"]') end
  end
end

-- CRC16 (XMODEM) of the node's name picks its shard of the load table.
local function crc16(text)
  local crc = 0
  for i = 1, #text do
    crc = bit.bxor(crc, bit.lshift(string.byte(text, i), 8))
    for _ = 1, 8 do
      crc = bit.lshift(crc, 1)
      if bit.band(crc, 0x10000) ~= 0 then crc = bit.bxor(crc, 0x1021) end
      crc = bit.band(crc, 0xffff)
    end
  end
  return crc
end

local function shards()
  return tonumber(redis.call('GET', P .. 'shards') or 1)
end

local function load_key(node)
  return P .. 'load:' .. crc16(node) % shards()
end

-- What a node has to do: read from its queue and its claims, never counted separately.
local function load_of(base, node)
  local queued = waiting_in(base .. '.' .. node)
  local inc = incarnation(node)
  local claimed = inc and redis.call('HLEN', P .. 'claims:' .. inc) or 0
  return queued, queued + claimed
end

-- The table holds the nodes whose own queue is not empty: those that may be stolen from.
local function note_load(node, queued, load)
  if queued > 0 then
    redis.call('ZADD', load_key(node), load, node)
  else
    redis.call('ZREM', load_key(node), node)
  end
end

-- Requests ------------------------------------------------------------------------------------
-- A live request of our own producers has a record: origin, token, state, incarnation.

local function record_of(id)
  local value = id ~= '' and redis.call('GET', P .. 'req:' .. id)
  if not value then return nil end
  local origin, token, state, inc = string.match(value, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)$')
  return origin and { origin = origin, token = token, state = state, inc = inc }
end

local function save_record(id, record)
  local value = table.concat({ record.origin, record.token, record.state, record.inc }, '\n')
  redis.call('SET', P .. 'req:' .. id, value, 'XX', 'KEEPTTL')
end

local function unquoted(id)
  return (string.gsub(id, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

-- The stream of a request at its origin; both sides compute the shard alike.
local function stream_of(origin, request_id)
  local readers = tonumber(string.match(origin, '^inferq%.%x+%.(%d+)$') or 0)
  if readers < 1 then return nil end
  local sum = 0
  for i = 1, #request_id do sum = sum + string.byte(request_id, i) end
  return P .. 'out:' .. origin .. ':' .. sum % readers
end

local function tell_origin(origin, request_id, attempt, reason, code, message)
  local stream = stream_of(origin, request_id)
  if not stream then return end
  local entry = cmsgpack.pack({ request_id, attempt, reason, code, message })
  redis.call('XADD', stream, 'NOMKSTREAM', '*', 'end', entry)
end

-- Dead letters: what cannot be decoded, or was started too often. The record and the origin are
-- told in the same step.
local function bury(raw, id, queue, reason, attempts, node, detail)
  local kept = ARGS.max_letter_bytes or 65536
  redis.call('XADD', P .. 'dead', 'MAXLEN', '~', ARGS.max_dead or 10000, '*',
    'raw', string.sub(raw, 1, kept), 'queue', queue, 'reason', reason, 'detail', detail or '',
    'attempts', attempts, 'node', node, 'bytes', #raw, 'at_ms', now_ms())
  local record = record_of(id)
  if record then
    tell_origin(record.origin, unquoted(id), attempts, 'error', reason, detail or reason)
    redis.call('DEL', P .. 'req:' .. id)
  end
end

-- Claims --------------------------------------------------------------------------------------
-- Field: claim number. Value: the shared list to return to, a line end, the message.

local function split_claim(value)
  local cut = string.find(value, '\n', 1, true)
  return string.sub(value, 1, cut - 1), string.sub(value, cut + 1)
end

-- Return claims to their queues. `entries`: {number, value, started, prompt, answer}; a message
-- whose answer had been started is at its next attempt, or dead when it had too many.
local function return_claims(entries, node)
  local by_key, returned, dead = {}, 0, 0
  for _, entry in ipairs(entries) do
    local key, raw = split_claim(entry.value)
    local e = parse(raw)
    if entry.started then e.attempt = e.attempt + 1 end
    if (entry.prompt or 0) > 0 then e.prompt, e.answer = entry.prompt, entry.answer end
    local record = record_of(e.id)
    if record and record.state == 'c' then
      redis.call('DEL', P .. 'req:' .. e.id)
    elseif e.plain then
      bury(raw, '', key, 'malformed', 0, node, 'not a message')
      dead = dead + 1
    elseif e.attempt >= ARGS.max_attempts then
      bury(serialize(e), e.id, key, 'attempts', e.attempt, node,
        'it was started ' .. e.attempt .. ' times and its node was lost each time')
      dead = dead + 1
    else
      if record then
        record.state, record.inc = 'q', ''
        save_record(e.id, record)
      end
      by_key[key] = by_key[key] or {}
      table.insert(by_key[key], e)
      returned = returned + 1
    end
  end
  for key, list in pairs(by_key) do
    table.sort(list, function(a, b) return a.number < b.number end)
    put_at_head(key, list)
  end
  return returned, dead
end

-- A message that an idle node was handed by BLMOVE and had not looked at.
local function return_staged(base, inc)
  local count = 0
  while redis.call('LMOVE', P .. 'staged:' .. inc, base, 'LEFT', 'RIGHT') do count = count + 1 end
  return count
end

-- Take everything away from an incarnation. Its fencing token is worth nothing from here on.
local function end_incarnation(inc, now)
  local node = string.match(inc, '^(.*)#%d+$') or inc
  local flat = redis.call('HGETALL', P .. 'claims:' .. inc)
  local entries = {}
  for i = 1, #flat, 2 do entries[#entries + 1] = { value = flat[i + 1], started = true } end
  local is_current = incarnation(node) == inc
  if is_current then
    redis.call('HDEL', P .. 'incs', node)
    redis.call('ZREM', load_key(node), node)
    redis.call('ZREM', P .. 'limits', node)
    redis.call('HSET', P .. 'states', node, 'gone')
    for _, base in ipairs(ARGS.bases) do release_queue(base, node) end
  end
  for _, base in ipairs(ARGS.bases) do return_staged(base, inc) end
  local returned, dead = return_claims(entries, node)
  redis.call('UNLINK', P .. 'claims:' .. inc, P .. 'bell:' .. inc)
  redis.call('SREM', P .. 'parked', inc)
  redis.call('ZREM', P .. 'leases', inc)
  -- A stopped process may still be blocked on the queue and be handed one message more.
  redis.call('ZADD', P .. 'graves', now + ARGS.grave_ms, inc)
  for _, base in ipairs(ARGS.bases) do nudge(base) end
  return returned, dead
end

-- Time in which nobody could renew a lease (Redis was away) counts against nobody.
local function tick(now)
  local last = tonumber(redis.call('GET', P .. 'tick') or now)
  redis.call('SET', P .. 'tick', now)
  local gap = now - last
  if gap < ARGS.ttl_ms * 0.7 then return end
  local leases = redis.call('ZRANGE', P .. 'leases', 0, -1, 'WITHSCORES')
  for i = 1, #leases, 2 do redis.call('ZADD', P .. 'leases', leases[i + 1] + gap, leases[i]) end
end

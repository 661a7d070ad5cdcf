-- Records of live requests, and what their origins are told.
-- A request has a record from when it was submitted (a stock producer's: from when its node has
-- read the id) until some time after its end:
--   state: 'q' waits, 'r' runs, 'c' was cancelled and is still somewhere, 'd' has ended
--   inc: the incarnation that runs it; origin, token: who submitted it, in which call
--   phase: 1 while it waits for or is in its prefill, 2 behind that, if that is elsewhere
--   holder: the incarnation that computes the other half of it meanwhile, if any; LOST if that is to be told
--   submitted: the envelope's, which tells its message from others that carry the same id

local LOST = 'lost'

local function unquoted(id)
  return (string.gsub(id, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

local function record_key(id)
  return P .. 'req:' .. id
end

local function pack_record(record)
  return cmsgpack.pack({
    record.state, record.inc, record.origin, record.token, record.submitted, record.holder or '',
    record.phase or 1,
  })
end

local function unpack_record(value)
  if not value then return nil end
  local fields = cmsgpack.unpack(value)
  return {
    state = fields[1], inc = fields[2], origin = fields[3], token = fields[4], submitted = fields[5],
    holder = fields[6], phase = fields[7],
  }
end

local function record_of(id)
  return id ~= '' and unpack_record(redis.call('GET', record_key(id))) or nil
end

local function save_record(id, record)
  redis.call('SET', record_key(id), pack_record(record), 'XX', 'KEEPTTL')
end

-- It is kept as long as a producer may repeat a call whose reply it did not get.
local function end_record(id, record)
  record.state, record.inc = 'd', ''
  redis.call('SET', record_key(id), pack_record(record), 'PX', ARGS.kept_ms)
end

-- Whoever computes the other half of a request need not go on.
local function dismiss_holder(id, record)
  if record.holder == '' then return end
  if alive(record.holder) then ring(record.holder, cjson.encode({ 'dismissed', unquoted(id) })) end
  record.holder = ''
end

-- What the holder of the other half computes will not come: who needs it hears of that, at once or
-- when it claims the request.
local function desert_claim(id, record)
  local is_running = alive(record.inc)
  if is_running then ring(record.inc, cjson.encode({ 'deserted', unquoted(id) })) end
  record.holder = not is_running and record.state == 'q' and LOST or ''
end

local function has_ended(record)
  return not record or record.state == 'd'
end

-- What a record says of a message with its id, for an incarnation that holds it ('' if none does):
-- 'live', 'cancelled', or 'duplicate' when the record is that of another message or claim.
local function standing(record, e, inc)
  if not record then return 'live' end
  if record.submitted ~= e.submitted or record.state == 'd' then return 'duplicate' end
  if record.state == 'c' then return 'cancelled' end
  if record.state == 'r' and record.inc ~= inc and alive(record.inc) then return 'duplicate' end
  return 'live'
end

-- Origins -------------------------------------------------------------------------------------

-- The stream of a request at its origin; both sides compute the shard alike.
local function stream_of(origin, request_id)
  local readers = tonumber(string.match(origin, '^inferq%.%x+%.(%d%d?%d?)$') or 0)
  if readers < 1 then return nil end
  local sum = 0
  for i = 1, #request_id do sum = sum + string.byte(request_id, i) end
  return P .. 'out:' .. origin .. ':' .. sum % readers
end

-- What AsyncResult.get() of a stock producer waits for; its Celery builds the error from it.
local function store_failure(request_id, kind, arguments)
  local key = 'celery-task-meta-' .. request_id
  local encoded = {}
  for i, argument in ipairs(arguments) do encoded[i] = cjson.encode(argument) end
  local value = '{"status": "FAILURE", "result": {"exc_type": "' .. kind .. '", "exc_message": ['
    .. table.concat(encoded, ', ') .. '], "exc_module": "inferq.errors"}, "traceback": null, '
    .. '"children": [], "date_done": null, "task_id": ' .. cjson.encode(request_id) .. '}'
  redis.call('SET', key, value, 'PX', ARGS.request_ttl_ms)
  redis.call('PUBLISH', key, value)
end

-- An origin that reads no stream is a stock producer.
local function tell_origin(origin, request_id, attempt, reason, code, message)
  local stream = stream_of(origin, request_id)
  if stream then
    local entry = cmsgpack.pack({ request_id, attempt, reason, code, message })
    redis.call('XADD', stream, 'NOMKSTREAM', '*', 'end', entry)
  elseif reason == 'cancelled' then
    store_failure(request_id, 'RequestCancelled', { request_id, message })
  else
    store_failure(request_id, 'RequestFailed', { request_id, message, code })
  end
end

-- Dead letters --------------------------------------------------------------------------------

local function write_letter(e, queue, reason, detail, node)
  local raw = serialize(e)
  redis.call('XADD', P .. 'dead', 'MAXLEN', '~', ARGS.max_dead, '*',
    'raw', string.sub(raw, 1, ARGS.max_letter_bytes), 'queue', queue, 'reason', reason,
    'detail', detail, 'attempts', e.attempt, 'node', node, 'bytes', #raw, 'at_ms', now_ms())
end

-- A message that cannot be run. Its origin is told, unless the request with its id is another one.
local function bury(e, queue, reason, detail, node, inc)
  write_letter(e, queue, reason, detail, node)
  local record = record_of(e.id)
  if not record then return end
  local verdict = standing(record, e, inc)
  if verdict == 'duplicate' then return end
  if verdict == 'live' then
    tell_origin(record.origin, unquoted(e.id), e.attempt, 'error', reason, detail)
  end
  end_record(e.id, record)
end

-- uses: base queues nodes loads records work sending
-- A dead letter becomes a request again: at the end of the shared queue of its phase, with a new count of attempts and
-- a new deadline. ARGS: letter, bases, max_waiting, min_load, lookahead, counts, kept_ms, request_ttl_ms.
-- Returns {'requeued'} or why not: {'unknown'}, {'cut'}, {'malformed'}, {'live'}, {'elsewhere'}, {'gone'}, {'full'}.
local entry = redis.call('XRANGE', P .. 'dead', ARGS.letter, ARGS.letter)[1]
if not entry then return reply('unknown') end
local letter = {}
for i = 1, #entry[2], 2 do letter[entry[2][i]] = entry[2][i + 1] end
local raw = letter.raw or ''
if tonumber(letter.bytes) ~= #raw then return reply('cut') end
local e = parse(raw)
if e.plain then return reply('malformed') end

-- The shared queue of a list, be it a node's own, and which of its lists it is, from 1.
local function home_of(list)
  for _, base in ipairs(ARGS.bases) do
    for i = #STEPS, 1, -1 do
      local step = STEPS[i]
      local name = string.sub(list, 1, #list - #step)
      local is_its = step == string.sub(list, #list - #step + 1)
      if is_its and (name == base or string.sub(name, 1, #base + 1) == base .. '.') then return base, i end
    end
  end
end

-- Who sent it, as far as the message still says.
local function origin_of(text)
  local is_read, message = pcall(cjson.decode, text)
  local properties = is_read and type(message) == 'table' and message.properties
  local origin = type(properties) == 'table' and properties.reply_to
  return type(origin) == 'string' and origin or ''
end

local base, step = home_of(letter.queue or '')
if not base then return reply('elsewhere') end
local now = now_ms()
local record = record_of(e.id)
if record and record.state ~= 'd' and not (record.state == 'c' and not alive(record.inc)) then return reply('live') end
local origin = origin_of(raw)
local stream = e.id ~= '' and stream_of(origin, unquoted(e.id))
if stream and redis.call('EXISTS', stream) == 0 then return reply('gone') end
local queue = queue_for(base, '')
if queue.waiting >= ARGS.max_waiting then return reply('full') end

e.number, e.attempt = 0, 0
-- No two requests with one id have the same time.
e.submitted = record and math.max(now, record.submitted + 1) or now
e.deadline = e.submitted + ARGS.request_ttl_ms
if e.id ~= '' then
  redis.call('SET', record_key(e.id), pack_record({
    state = 'q', inc = '', origin = origin, token = '', submitted = e.submitted, phase = base == ARGS.bases[2] and 2 or 1,
  }), 'PX', ARGS.request_ttl_ms + ARGS.kept_ms)
end
send(queue, step, e)
push_all()
redis.call('XDEL', P .. 'dead', ARGS.letter)
return reply('requeued')

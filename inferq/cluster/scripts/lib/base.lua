-- What all scripts share. `ARGS` is the one argument, a msgpack map; `P` the prefix of the topic's keys.
-- Every script is one atomic step: no other command runs between its lines. For the same reason it
-- must not fail half way, whatever anybody has put into a queue.

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

-- The values of many keys; false for those that do not exist.
local function get_all(keys)
  if #keys == 1 then return { redis.call('GET', keys[1]) } end
  local values = {}
  for first = 1, #keys, MOST_ARGUMENTS do
    local last = math.min(first + MOST_ARGUMENTS - 1, #keys)
    local part = redis.call('MGET', unpack(keys, first, last))
    for i = 1, last - first + 1 do values[first + i - 1] = part[i] end
  end
  return values
end

-- Numbers that were never used before in this topic: the first of `count`.
local function fresh_numbers(count)
  return redis.call('INCRBY', P .. 'seq', count) - count + 1
end

-- Envelopes -----------------------------------------------------------------------------------
-- A stock message in JSON, which may begin with our own key. Only that is ever parsed here.
-- `number` is 0 until a script first looks at the message. From then on it is twice the message's
-- place in the order of all that was looked at, and odd once the message was claimed.

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

-- The time of a stock producer's message counts from when a script first looks at it.
local function stamp(e, now)
  if e.plain then return end
  if e.submitted == 0 then e.submitted = now end
  if e.deadline == 0 then e.deadline = e.submitted + ARGS.request_ttl_ms end
end

-- What nodes have to do, in tokens and in requests, for placing: prompts that wait in a node's own
-- queue or run at it; in the decode phase answers count, too. It changes in the step that moves a
-- message, so all producers see at once what one has sent. A full report counts it anew.
-- Hash `work:{base}`, fields for a node: its name (tokens), '#name' (requests), '~name' (of the
-- tokens, those that wait). Hash `pledged:{inc}`: claim -> 'tokens phase milliseconds'.

-- Without a size a message is taken for English in JSON and base64: about 5 bytes a token.
local BYTES_PER_TOKEN = 5
local USUAL_ANSWER = 128

-- Tokens of the prompt and of the answer.
local function sizes(e)
  local prompt = e.prompt > 0 and e.prompt or math.max(1, math.floor(#(e.rest or '') / BYTES_PER_TOKEN))
  return prompt, e.answer > 0 and e.answer or USUAL_ANSWER
end

local function is_decode(base)
  return base == ARGS.bases[2]
end

local function tokens_of(base, e)
  local prompt, answer = sizes(e)
  return is_decode(base) and prompt + answer or prompt
end

-- Changes of one step, written together by `write_work`.
local work_changes = {}

local function add_work(base, field, amount)
  local changes = work_changes[base] or {}
  work_changes[base] = changes
  changes[field] = (changes[field] or 0) + amount
end

local function change_work(base, node, tokens, requests)
  add_work(base, node, tokens)
  add_work(base, '#' .. node, requests)
end

-- A message enters (sign 1) or leaves (-1) a node's own queue.
local function count_waiting(base, node, e, sign)
  if not ARGS.counts then return end
  local tokens = tokens_of(base, e)
  change_work(base, node, sign * tokens, sign)
  add_work(base, '~' .. node, sign * tokens)
end

local function write_work()
  for base, changes in pairs(work_changes) do
    for field, amount in pairs(changes) do
      if amount ~= 0 then redis.call('HINCRBY', P .. 'work:' .. base, field, amount) end
    end
  end
  work_changes = {}
end

local function pack_pledge(base, e, now)
  return string.format('%d %d %d', tokens_of(base, e), is_decode(base) and 2 or 1, now)
end

local function unpack_pledge(value)
  local tokens, phase, at = string.match(value or '', '^(%d+) (%d) (%d+)$')
  if tokens then return tonumber(tokens), ARGS.bases[tonumber(phase)], tonumber(at) end
end

-- Claims of a node have ended: what they had pledged is free.
local function release_pledges(inc, node, claims)
  if not ARGS.counts or #claims == 0 then return end
  local key = P .. 'pledged:' .. inc
  for first = 1, #claims, MOST_ARGUMENTS do
    local last = math.min(first + MOST_ARGUMENTS - 1, #claims)
    for _, value in ipairs(redis.call('HMGET', key, unpack(claims, first, last))) do
      local tokens, base = unpack_pledge(value)
      if tokens then change_work(base, node, -tokens, -1) end
    end
  end
  call_in_parts('HDEL', key, claims)
end

-- A node has left.
local function forget_work(base, node)
  redis.call('HDEL', P .. 'work:' .. base, node, '#' .. node, '~' .. node)
end

-- What waits in a node's own queue is about to go elsewhere.
local function forget_waiting(base, node)
  local key = P .. 'work:' .. base
  local waiting = ARGS.counts and tonumber(redis.call('HGET', key, '~' .. node) or 0) or 0
  if waiting == 0 then return end
  redis.call('HINCRBY', key, node, -waiting)
  redis.call('HINCRBY', key, '#' .. node, -waiting_in(base .. '.' .. node))
  redis.call('HDEL', key, '~' .. node)
end

-- Count a node's work anew: from its claims and its queues. Pledges of requests that never ended
-- are released after some time.
local function recount_work(inc, node, now)
  local key = P .. 'pledged:' .. inc
  local tokens, requests = {}, {}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local amount, base, at = unpack_pledge(flat[i + 1])
    if not amount or now - at > ARGS.release_ms then
      redis.call('HDEL', key, flat[i])
    else
      tokens[base] = (tokens[base] or 0) + amount
      requests[base] = (requests[base] or 0) + 1
    end
  end
  for _, base in ipairs(ARGS.bases) do
    local count = waiting_in(base .. '.' .. node)
    local waiting = count > 0 and tonumber(redis.call('HGET', P .. 'work:' .. base, '~' .. node) or 0) or 0
    local total = (tokens[base] or 0) + math.max(0, waiting)
    local all = (requests[base] or 0) + count
    if all == 0 then
      forget_work(base, node)
    else
      redis.call('HSET', P .. 'work:' .. base, node, total, '#' .. node, all, '~' .. node, math.max(0, waiting))
    end
  end
end

-- Claims, how they return to their queues, and the end of an incarnation.
-- A claim's field is a number that was never used before, its value the shared list to return to,
-- a line end, and the message.

local function pack_claim(key, raw)
  return key .. '\n' .. raw
end

local function split_claim(value)
  local cut = string.find(value, '\n', 1, true)
  return string.sub(value, 1, cut - 1), string.sub(value, cut + 1)
end

-- What becomes of a claim that ends without its request having ended. Returns 'returned' with the
-- request waiting again, 'dead' with its origin told, or 'dropped'.
local function give_up(e, key, node, inc, started)
  local record = record_of(e.id)
  local verdict = standing(record, e, inc)
  -- One that was not started finds its other half where its message says.
  if verdict ~= 'duplicate' and record and (started or verdict ~= 'live') then dismiss_holder(e.id, record) end
  if verdict == 'duplicate' then
    write_letter(e, key, 'duplicate', 'another request has this id', node)
    return 'dead'
  elseif verdict == 'cancelled' then
    end_record(e.id, record)
    return 'dropped'
  elseif e.attempt >= ARGS.max_attempts then
    local detail = 'it was started ' .. e.attempt .. ' times and did not end'
    bury(e, key, 'attempts', detail, node, inc)
    return 'dead'
  end
  if record then
    record.state, record.inc = 'q', ''
    save_record(e.id, record)
  end
  return 'returned'
end

-- Return claims to the heads of their lists. `entries`: {value, started, prompt, answer}; a message
-- that had been started is at its next attempt, or dead when it had too many.
local function return_claims(entries, node, inc)
  local lists, counts = {}, { returned = 0, dead = 0, dropped = 0 }
  for _, entry in ipairs(entries) do
    local key, raw = split_claim(entry.value)
    local e = parse(raw)
    if entry.started then e.attempt = e.attempt + 1 end
    if (entry.prompt or 0) > 0 then e.prompt, e.answer = entry.prompt, entry.answer end
    local outcome = give_up(e, key, node, inc, entry.started)
    counts[outcome] = counts[outcome] + 1
    if outcome == 'returned' then
      lists[key] = lists[key] or {}
      table.insert(lists[key], e)
    end
  end
  for key, list in pairs(lists) do put_at_head(key, list) end
  return counts.returned, counts.dead
end

-- Messages that Redis handed to an idle node, and that it had not looked at, return to the place
-- they came from: the shared prefill queue. Returns how many.
local function return_staged(inc)
  local raws = redis.call('LRANGE', P .. 'staged:' .. inc, 0, -1)
  if #raws == 0 then return 0 end
  redis.call('DEL', P .. 'staged:' .. inc)
  local list = {}
  for i, raw in ipairs(raws) do list[i] = parse(raw) end
  put_at_head(ARGS.bases[1], list)
  return #raws
end

-- What an incarnation without a lease may still be handed goes back; its other steps are refused.
local function refuse(inc)
  if return_staged(inc) > 0 then announce(ARGS.bases[1]) end
  return reply('fenced')
end

-- A node serves a phase no more: nothing is sent to its queue, and what waits there goes elsewhere.
-- Returns whether anything did.
local function leave_phase(base, node)
  redis.call('ZREM', load_key(base, node), node)
  redis.call('ZREM', P .. 'limits:' .. base, node)
  forget_waiting(base, node)
  return release_queue(base, node)
end

local function leave_node(node)
  redis.call('HDEL', P .. 'incs', node)
  redis.call('HSET', P .. 'states', node, 'gone')
  redis.call('ZADD', P .. 'gone', 0, node)
  for _, base in ipairs(ARGS.bases) do
    leave_phase(base, node)
    forget_work(base, node)
  end
end

-- Nodes that need the other half of a request from an incarnation hear that it will not come.
local function desert(inc)
  local key = P .. 'holding:' .. inc
  for _, id in ipairs(redis.call('SMEMBERS', key)) do
    local record = record_of(id)
    if record and record.holder == inc then
      desert_claim(id, record)
      save_record(id, record)
    end
  end
  redis.call('UNLINK', key)
end

-- Take everything away from an incarnation. Its fencing token is worth nothing from here on.
-- Returns how many claims were returned, and how many are dead letters now.
local function end_incarnation(inc, now)
  local node = string.match(inc, '^(.*)#%d+$') or inc
  local flat = redis.call('HVALS', P .. 'claims:' .. inc)
  local entries = {}
  for i, value in ipairs(flat) do entries[i] = { value = value, started = true } end
  if incarnation(node) == inc then leave_node(node) end
  return_staged(inc)
  local returned, dead = return_claims(entries, node, inc)
  redis.call('UNLINK', P .. 'claims:' .. inc, P .. 'pledged:' .. inc, P .. 'bell:' .. inc)
  unpark(inc)
  desert(inc)
  redis.call('ZREM', P .. 'leases', inc)
  redis.call('SREM', P .. 'graced', inc)
  -- A stopped process may still be blocked on the queue and be handed one message more.
  redis.call('ZADD', P .. 'graves', now + ARGS.grave_ms, inc)
  announce_all()
  return returned, dead
end

-- Time in which nobody could renew a lease, because Redis was away, counts against nobody. As it
-- cannot be told from time in which all nodes were dead, each lease is extended only once.
local function tick(now)
  local last = tonumber(redis.call('GET', P .. 'tick') or now)
  redis.call('SET', P .. 'tick', now)
  local gap = now - last
  if gap < ARGS.lease_ms * 0.7 then return end
  local leases = redis.call('ZRANGE', P .. 'leases', 0, -1, 'WITHSCORES')
  for i = 1, #leases, 2 do
    if redis.call('SADD', P .. 'graced', leases[i]) == 1 then
      redis.call('ZADD', P .. 'leases', leases[i + 1] + gap, leases[i])
    end
  end
end

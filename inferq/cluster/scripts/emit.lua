-- uses: base nodes records work
-- Write outputs to their origins, store results, and settle the claims that ended with them.
-- ARGS: node, inc, bases, counts, max_entries, max_ended, kept_ms, groups. A group is {stream (or ''), blob, settles,
-- results}, applied as a whole or not at all; settles: {{claim, id, failed, held, story}, ...}; results: {{key, value,
-- ttl_s}, ...}. failed: no answer; held: the other half of it runs or ran elsewhere; story: what is noted of a request
-- that has ended, or ''.
-- Returns {'ok', {outcome of each group}} or {'fenced'}; outcome: 0 done, 1 the origin is gone, 2 its stream is full.
if not alive(ARGS.inc) then return reply('fenced') end
local DONE, GONE, FULL = 0, 1, 2
local claims = P .. 'claims:' .. ARGS.inc

local function write(stream, blob)
  if stream == '' then return DONE end
  if redis.call('XLEN', stream) >= ARGS.max_entries then return FULL end
  return redis.call('XADD', stream, 'NOMKSTREAM', '*', 'o', blob) and DONE or GONE
end

-- The half that this node computed beside the one that holds the claim is done, or has failed.
local function let_go(id, failed)
  redis.call('SREM', P .. 'holding:' .. ARGS.inc, id)
  local record = record_of(id)
  if record and record.holder == ARGS.inc then
    if failed then desert_claim(id, record) else record.holder = '' end
    save_record(id, record)
  end
end

-- A call that is repeated must not end the next request with the same id.
local function settle(claim, id, failed, held, story)
  if held then let_go(id, failed) end
  if redis.call('HDEL', claims, claim) == 0 then return end
  if story ~= '' then
    redis.call('XADD', P .. 'ended', 'MAXLEN', '~', ARGS.max_ended, '*', 'id', id, 'story', story)
  end
  local record = record_of(id)
  if record and record.inc == ARGS.inc then
    if failed then dismiss_holder(id, record) end
    end_record(id, record)
  end
end

local outcomes, ended = {}, {}
for i, group in ipairs(ARGS.groups) do
  local stream, blob, settles, results = unpack(group)
  local outcome = write(stream, blob)
  outcomes[i] = outcome
  if outcome ~= FULL then
    for _, result in ipairs(results) do
      redis.call('SET', result[1], result[2], 'EX', result[3])
      redis.call('PUBLISH', result[1], result[2])
    end
    for _, row in ipairs(settles) do
      ended[#ended + 1] = row[1]
      settle(unpack(row))
    end
  end
end
release_pledges(ARGS.inc, ARGS.node, ended)
write_work()
return reply('ok', outcomes)

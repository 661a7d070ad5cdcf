-- uses: base nodes records
-- Write outputs to their origins, store results, and settle the claims that ended with them.
-- ARGS: inc, max_entries, kept_ms, groups. A group is {stream (or ''), blob, settles, results}, applied as a whole or
-- not at all; settles: {{claim, id}, ...}; results: {{key, value, ttl_s}, ...}.
-- Returns {'ok', {outcome of each group}} or {'fenced'}; outcome: 0 done, 1 the origin is gone, 2 its stream is full.
if not alive(ARGS.inc) then return reply('fenced') end
local DONE, GONE, FULL = 0, 1, 2
local claims = P .. 'claims:' .. ARGS.inc

local function write(stream, blob)
  if stream == '' then return DONE end
  if redis.call('XLEN', stream) >= ARGS.max_entries then return FULL end
  return redis.call('XADD', stream, 'NOMKSTREAM', '*', 'o', blob) and DONE or GONE
end

-- A call that is repeated must not end the next request with the same id.
local function settle(claim, id)
  if redis.call('HDEL', claims, claim) == 0 then return end
  local record = record_of(id)
  if record and record.inc == ARGS.inc then end_record(id, record) end
end

local outcomes = {}
for i, group in ipairs(ARGS.groups) do
  local stream, blob, settles, results = unpack(group)
  local outcome = write(stream, blob)
  outcomes[i] = outcome
  if outcome ~= FULL then
    for _, result in ipairs(results) do
      redis.call('SET', result[1], result[2], 'EX', result[3])
      redis.call('PUBLISH', result[1], result[2])
    end
    for _, pair in ipairs(settles) do settle(pair[1], pair[2]) end
  end
end
return reply('ok', outcomes)

-- Write outputs to their origins, store results, and settle the claims that ended with them.
-- ARGS: inc, max_entries, groups. A group is {stream (or ''), blob, settles, results}, applied as a whole or not
-- at all; settles: {{number, id}, ...}; results: {{key, value, ttl_s}, ...}.
-- Returns {'ok', {outcome of each group}} or {'fenced'}; outcome: 0 done, 1 the origin is gone, 2 its stream is full.
if not alive(ARGS.inc) then return reply('fenced') end
local DONE, GONE, FULL = 0, 1, 2
local outcomes, numbers, keys = {}, {}, {}

local function write(stream, blob)
  if stream == '' then return DONE end
  if redis.call('XLEN', stream) >= ARGS.max_entries then return FULL end
  return redis.call('XADD', stream, 'NOMKSTREAM', '*', 'o', blob) and DONE or GONE
end

for i, group in ipairs(ARGS.groups) do
  local outcome = write(group[1], group[2])
  outcomes[i] = outcome
  if outcome ~= FULL then
    for _, result in ipairs(group[4]) do
      redis.call('SET', result[1], result[2], 'EX', result[3])
      redis.call('PUBLISH', result[1], result[2])
    end
    for _, settle in ipairs(group[3]) do
      numbers[#numbers + 1] = settle[1]
      if settle[2] ~= '' then keys[#keys + 1] = P .. 'req:' .. settle[2] end
    end
  end
end
if #numbers > 0 then call_in_parts('HDEL', P .. 'claims:' .. ARGS.inc, numbers) end
for first = 1, #keys, MOST_ARGUMENTS do
  redis.call('UNLINK', unpack(keys, first, math.min(first + MOST_ARGUMENTS - 1, #keys)))
end
return reply('ok', outcomes)

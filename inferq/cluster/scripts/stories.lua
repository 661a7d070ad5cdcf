-- uses: base
-- Look for the end of a request among those that are kept, the newest first. Changes nothing.
-- ARGS: id (quoted), before (an entry's id, or ''), most (entries to look at).
-- Returns {'ok', entry, story, last}: the entry and its story, '' when it is not among these; last: the oldest entry that
-- was looked at, '' when there is none before it.
local last = ARGS.before == '' and '+' or '(' .. ARGS.before
local entries = redis.call('XREVRANGE', P .. 'ended', last, '-', 'COUNT', ARGS.most)
for _, entry in ipairs(entries) do
  local fields = entry[2]
  if fields[1] == 'id' and fields[2] == ARGS.id and fields[3] == 'story' then
    return reply('ok', entry[1], fields[4], '')
  end
end
return reply('ok', '', '', #entries == ARGS.most and entries[#entries][1] or '')

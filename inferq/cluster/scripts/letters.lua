-- uses: base
-- Dead letters, the newest first, with the beginnings of their messages only. Changes nothing.
-- ARGS: before (a letter's id, or '' for the newest), count, most_bytes (of a message).
-- Returns {'ok', {{id, fields, begin, length, task_id}, ...}}; fields: name, value, ...; length: of what is kept of the
-- message, bytes; task_id: as the message's properties say, or ''.
local rows = {}
local last = ARGS.before == '' and '+' or '(' .. ARGS.before
for i, entry in ipairs(redis.call('XREVRANGE', P .. 'dead', last, '-', 'COUNT', ARGS.count)) do
  local id, fields = unpack(entry)
  local kept, begin, length, task_id = {}, '', 0, ''
  for at = 1, #fields, 2 do
    local name, value = fields[at], fields[at + 1]
    if name == 'raw' then
      begin, length = string.sub(value, 1, ARGS.most_bytes), #value
      -- In a text that a producer has sent, the quotes would be escaped.
      task_id = string.match(value, '"correlation_id": "([^"\\]*)"') or ''
    else
      kept[#kept + 1] = name
      kept[#kept + 1] = string.sub(value, 1, ARGS.most_bytes)
    end
  end
  rows[i] = { id, kept, begin, length, string.sub(task_id, 1, ARGS.most_bytes) }
end
return reply('ok', rows)

-- uses: base
-- Which commands the user of this connection may not run. Changes nothing.
-- ARGS: commands ({name, argument, ...}, each with a key or channel of its kind). Returns {'ok', {number from 1, ...}}.
local missing = {}
for i, command in ipairs(ARGS.commands) do
  if not redis.acl_check_cmd(unpack(command)) then missing[#missing + 1] = i end
end
return reply('ok', missing)

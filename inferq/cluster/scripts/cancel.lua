-- Cancel a live request, wherever it is. ARGS: id (quoted), tell (whether the origin must hear of it), message.
-- Returns {'unknown'}, {'queued'} or {'running'}.
local record = record_of(ARGS.id)
if not record then return reply('unknown') end
local was = record.state
record.state = 'c'
save_record(ARGS.id, record)
local request_id = unquoted(ARGS.id)
if ARGS.tell then
  -- An end by somebody else than the node holds for every attempt.
  tell_origin(record.origin, request_id, 1000000, 'cancelled', 'cancelled', ARGS.message)
end
if was == 'r' and alive(record.inc) then
  ring(record.inc, cjson.encode({ 'cancel', request_id }))
  return reply('running')
end
return reply('queued')

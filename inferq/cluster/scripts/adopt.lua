-- uses: base queues nodes loads records work recovery
-- Make the ids of stock producers' claimed messages known, which a node has read from them, so that recovery,
-- cancel and settle know them. ARGS: inc, bases, items, kept_ms. items: {{claim, id, origin}, ...}.
-- Returns {'ok', {verdict, ...}} or {'fenced'}. Verdicts: 'ok'; 'duplicate', the id belongs to another request and
-- the claim stays; 'cancelled', the claim is gone; 'unknown', there is no such claim.
if not alive(ARGS.inc) then return refuse(ARGS.inc) end
local now = now_ms()
local claims = P .. 'claims:' .. ARGS.inc

-- 'free', 'ok' when it is this claim's already, 'cancelled', or 'duplicate'.
local function judge(record, e, id, origin)
  if has_ended(record) then return 'free' end
  if e.id == id and record.submitted == e.submitted then return 'ok' end
  if record.state == 'r' then return alive(record.inc) and 'duplicate' or 'free' end
  if record.origin ~= origin then return 'duplicate' end
  return record.state == 'c' and 'cancelled' or 'free'
end

local function adopt(claim, id, origin)
  local value = redis.call('HGET', claims, claim)
  if not value then return 'unknown' end
  local key, raw = split_claim(value)
  local e = parse(raw)
  local record = record_of(id)
  local verdict = judge(record, e, id, origin)
  if verdict == 'cancelled' then
    redis.call('HDEL', claims, claim)
    end_record(id, record)
  elseif verdict == 'free' then
    e.id = id
    -- No two requests with one id have the same time.
    if record then e.submitted = math.max(e.submitted, record.submitted + 1) end
    redis.call('HSET', claims, claim, pack_claim(key, serialize(e)))
    record = { state = 'r', inc = ARGS.inc, origin = origin, token = '', submitted = e.submitted }
    local left_ms = math.max(0, e.deadline - now) + ARGS.kept_ms
    redis.call('SET', record_key(id), pack_record(record), 'PX', left_ms)
    return 'ok'
  end
  return verdict
end

local verdicts = {}
for i, item in ipairs(ARGS.items) do verdicts[i] = adopt(item[1], item[2], item[3]) end
return reply('ok', verdicts)

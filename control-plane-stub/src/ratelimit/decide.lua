-- The arithmetic of rate.rs, for all limits of one request at once. Time is Redis' own: replicas share one clock.
-- KEYS: one per limit. ARGV per limit: algorithm (w or g), requests, microseconds of the unit, burst, hits (negative:
-- returned), enforced (1 or 0). Answers per limit: over, remaining, microseconds until reset.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limits, admitted = {}, true
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 6
  local limit = {
    key = key, window = ARGV[at + 1] == 'w', requests = tonumber(ARGV[at + 2]), period = tonumber(ARGV[at + 3]),
    hits = tonumber(ARGV[at + 5]), enforced = ARGV[at + 6] == '1', since = now, used = 0
  }
  limit.price = limit.window and 1 or limit.period
  local capacity = limit.window and limit.requests or tonumber(ARGV[at + 4])
  if limit.requests == 0 then capacity = 0 end
  limit.full = capacity * limit.price
  local since, used
  local held = redis.call('GET', key)
  if held then
    local colon = string.find(held, ':', 1, true)
    since, used = tonumber(string.sub(held, 1, colon - 1)), tonumber(string.sub(held, colon + 1))
  end
  if limit.window then
    limit.since = now - now % limit.period
    if since and since >= limit.since then limit.since, limit.used = since, used end
  elseif since then
    limit.since = math.max(now, since)
    limit.used = math.max(0, used - math.max(0, now - since) * limit.requests)
  end
  limit.over = limit.hits >= 0 and limit.used + math.max(limit.hits, 1) * limit.price > limit.full
  if limit.over and limit.enforced then admitted = false end
  limits[i] = limit
end
local answers = {}
for i, limit in ipairs(limits) do
  if limit.over then
    if limit.hits > 1 then limit.used = math.max(limit.full, limit.used) end
  elseif limit.hits < 0 then
    limit.used = math.max(0, limit.used + limit.hits * limit.price)
  elseif admitted then
    limit.used = limit.used + limit.hits * limit.price
  end
  local speed = math.max(limit.requests, 1)
  local drained = math.ceil(limit.used / speed)
  local reset = drained
  local ends = limit.since + drained
  if limit.window then
    ends = limit.since + limit.period
    reset = ends - now
  elseif limit.over then
    local missing = math.max(0, limit.used + math.max(limit.hits, 1) * limit.price - limit.full)
    reset = math.ceil(math.max(1, math.min(missing, limit.used)) / speed)
  end
  if limit.used > 0 then
    local ttl = string.format('%.0f', math.max(1, math.ceil((ends - now) / 1000)))
    redis.call('SET', limit.key, string.format('%.0f:%.0f', limit.since, limit.used), 'PX', ttl)
  else
    redis.call('DEL', limit.key)
  end
  local remaining = math.floor(math.max(0, limit.full - limit.used) / limit.price)
  answers[i] = { limit.over and 1 or 0, string.format('%.0f', remaining), string.format('%.0f', reset) }
end
return answers

-- The guard's one script: `limits/local.py` in Lua, on the server's clock. Times are in microseconds, days since 1970.
--
-- ARGV: operation, subject (msgpack: {{meter, rpm, rpd, concurrency}…}, {{purse, granted, charged, caps…}…}; a cap that
-- is not set is -1), details of the operation (msgpack), and in tests only the time.
--
-- Keys, each after the prefix `vc:`
--   w:METER      list    times of admission within the window, oldest first
--   d:METER:DAY  string  requests of the day
--   l:METER      zset    running requests by the time that their lease lapses
--   m:PURSE      hash    charged, held: nano-dollars
--   s:PURSE      hash    charges by day
--   h:PURSE      hash    what each running request holds
--   x:PURSE      zset    these requests by the time that their hold lapses
--
-- A Lua number is exact up to 2^53: nine million dollars in nano-dollars.

local WINDOW, DAY = 60000000, 86400000000
local OUTPUT_TOKENS_MIN, DAYS_KEPT_MAX, LAPSED_PER_CALL = 16, 70, 20

local operation = ARGV[1]
local subject, details = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local meters, purses = subject[1], subject[2]
local request = details[1]
local now
if ARGV[4] then
  now = tonumber(ARGV[4])
else
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local today = math.floor(now / DAY)

local function number(command, ...)
  return tonumber(redis.call(command, ...) or 0) or 0
end

-- The times of admission in the window: how many.
local function window(id)
  local key = 'vc:w:' .. id
  local oldest = redis.call('LINDEX', key, 0)
  while oldest and tonumber(oldest) <= now - WINDOW do
    redis.call('LPOP', key)
    oldest = redis.call('LINDEX', key, 0)
  end
  return redis.call('LLEN', key)
end

-- Days since 1970 of the first day of the month that `day` lies in (H. Hinnant, "chrono-compatible low-level date
-- algorithms": the day within the year that begins in March tells the day of the month).
local function month_begin(day)
  local since = day + 719468
  local era = math.floor(since / 146097)
  local of_era = since - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  return day - (of_year - math.floor((153 * month + 2) / 5))
end

local function forget_lapsed_holds(id)
  local lapsed = redis.call('ZRANGEBYSCORE', 'vc:x:' .. id, '-inf', now, 'LIMIT', 0, LAPSED_PER_CALL)
  for _, name in ipairs(lapsed) do
    redis.call('HINCRBY', 'vc:m:' .. id, 'held', -number('HGET', 'vc:h:' .. id, name))
    redis.call('HDEL', 'vc:h:' .. id, name)
    redis.call('ZREM', 'vc:x:' .. id, name)
  end
end

-- What may still be held of a purse, and what its credit alone would leave; nil where the purse is not known.
local function left(purse)
  local id, granted, booked, daily, monthly, total = unpack(purse)
  local money = redis.call('HMGET', 'vc:m:' .. id, 'charged', 'held')
  if not money[1] then
    return nil
  end
  local charged, held = tonumber(money[1]), tonumber(money[2] or 0)
  if booked > charged then -- the books know of charges that were never told here
    redis.call('HSET', 'vc:m:' .. id, 'charged', booked)
    charged = booked
  end
  local credit = granted - charged
  local rest = credit
  if total >= 0 then
    rest = math.min(rest, total - charged)
  end
  if daily >= 0 then
    rest = math.min(rest, daily - number('HGET', 'vc:s:' .. id, today))
  end
  if monthly >= 0 then
    local first, spent = month_begin(today), 0
    for day = first, today + 31 do
      if month_begin(day) == first then
        spent = spent + number('HGET', 'vc:s:' .. id, day)
      end
    end
    rest = math.min(rest, monthly - spent)
  end
  return rest - held, credit - held
end

-- What the purses cover of an ask, and hold for it: tokens, those held for at first, and the amount; or the refusal.
local function hold()
  local lease, input, price, asked, slice = unpack(details, 2)
  local function cost(tokens)
    return input + math.ceil(tokens * price / 1000)
  end
  local tokens, whole = asked, cost(asked)
  if whole == 0 then
    return tokens, tokens, 0
  end
  for place, purse in ipairs(purses) do
    forget_lapsed_holds(purse[1])
    local rest, credit = left(purse)
    if not rest then
      return nil, { 3, place }
    end
    if whole > rest then
      local covered = 0
      if price > 0 then
        covered = math.floor((rest - input) * 1000 / price)
      end
      if covered < OUTPUT_TOKENS_MIN then
        return nil, { 2, place, rest, rest < credit and 1 or 0 }
      end
      tokens = math.min(tokens, covered)
    end
  end
  local first = tokens
  if slice > 0 and slice < tokens then
    first = slice
  end
  local held = cost(first)
  for _, purse in ipairs(purses) do
    redis.call('HINCRBY', 'vc:m:' .. purse[1], 'held', held)
    redis.call('HSET', 'vc:h:' .. purse[1], request, held)
    redis.call('ZADD', 'vc:x:' .. purse[1], now + lease, request)
  end
  return tokens, first, held
end

local function admit()
  local lease = details[2]
  local counts = {}
  for place, meter in ipairs(meters) do
    local id, rpm, rpd, concurrency = unpack(meter)
    if rpm > 0 then
      local count = window(id)
      if count >= rpm then
        return { 1, place, 1, tonumber(redis.call('LINDEX', 'vc:w:' .. id, count - rpm)) + WINDOW - now }
      end
      counts[place] = count
    end
    if rpd > 0 and number('GET', 'vc:d:' .. id .. ':' .. today) >= rpd then
      return { 1, place, 2, (today + 1) * DAY - now }
    end
    if concurrency > 0 and redis.call('ZCARD', 'vc:l:' .. id) >= concurrency then
      redis.call('ZREMRANGEBYSCORE', 'vc:l:' .. id, '-inf', now)
      if redis.call('ZCARD', 'vc:l:' .. id) >= concurrency then
        return { 1, place, 3, 0 }
      end
    end
  end
  local tokens, first, held = hold() -- the last leg that may refuse: it takes nothing then
  if not tokens then
    return first
  end
  local limit, remaining, reset, day_limit, day_remaining = 0, 0, 0, 0, 0
  for place, meter in ipairs(meters) do
    local id, rpm, rpd, concurrency = unpack(meter)
    if concurrency > 0 then
      redis.call('ZADD', 'vc:l:' .. id, now + lease, request)
      redis.call('PEXPIRE', 'vc:l:' .. id, math.ceil(lease / 1000) + 1000)
    end
    if rpm > 0 then
      local key = 'vc:w:' .. id
      redis.call('RPUSH', key, now)
      redis.call('PEXPIRE', key, WINDOW / 1000 + 1000)
      local rest = rpm - counts[place] - 1
      if limit == 0 or rest < remaining then
        limit, remaining = rpm, rest
        reset = tonumber(redis.call('LINDEX', key, 0)) + WINDOW - now
      end
    end
    if rpd > 0 then
      local key = 'vc:d:' .. id .. ':' .. today
      local rest = rpd - redis.call('INCR', key)
      redis.call('EXPIRE', key, 2 * DAY / 1000000)
      if day_limit == 0 or rest < day_remaining then
        day_limit, day_remaining = rpd, rest
      end
    end
  end
  return { 0, tokens, first, held, limit, remaining, reset, day_limit, day_remaining, today }
end

-- A purse that is not known yet begins with what the store says.
local function open()
  for place, purse in ipairs(purses) do
    redis.call('HSETNX', 'vc:m:' .. purse[1], 'charged', purse[3])
    for day, amount in pairs(details[2][place]) do
      redis.call('HSETNX', 'vc:s:' .. purse[1], day, amount)
    end
  end
  return 1
end

-- Hold for another ask in place of what is held, on the day that the request was admitted.
local function rehold()
  today = details[7]
  local before = {}
  for _, purse in ipairs(purses) do
    local held = redis.call('HGET', 'vc:h:' .. purse[1], request)
    if held then
      before[purse[1]] = held
      redis.call('HINCRBY', 'vc:m:' .. purse[1], 'held', -held)
      redis.call('HDEL', 'vc:h:' .. purse[1], request)
    end
  end
  local tokens, first, held = hold()
  if tokens then
    return { 0, tokens, first, held }
  end
  for id, amount in pairs(before) do
    redis.call('HINCRBY', 'vc:m:' .. id, 'held', amount)
    redis.call('HSET', 'vc:h:' .. id, request, amount)
  end
  return first
end

local function extend()
  local more = details[2]
  for _, purse in ipairs(purses) do
    local rest = left(purse)
    if not rest or rest < more or redis.call('HEXISTS', 'vc:h:' .. purse[1], request) == 0 then
      return 0
    end
  end
  for _, purse in ipairs(purses) do
    redis.call('HINCRBY', 'vc:m:' .. purse[1], 'held', more)
    redis.call('HINCRBY', 'vc:h:' .. purse[1], request, more)
  end
  return 1
end

-- Told again after a lost connection (`again`), a settlement whose hold is gone was heard the first time.
local function settle()
  local charge, day, again = details[2], details[3], details[4]
  for _, meter in ipairs(meters) do
    if meter[4] > 0 then
      redis.call('ZREM', 'vc:l:' .. meter[1], request)
    end
  end
  for _, purse in ipairs(purses) do
    local money, spent = 'vc:m:' .. purse[1], 'vc:s:' .. purse[1]
    local held = redis.call('HGET', 'vc:h:' .. purse[1], request)
    if held then
      redis.call('HINCRBY', money, 'held', -held)
      redis.call('HDEL', 'vc:h:' .. purse[1], request)
      redis.call('ZREM', 'vc:x:' .. purse[1], request)
    end
    if charge > 0 and (held or again == 0) and redis.call('HEXISTS', money, 'charged') == 1 then
      redis.call('HINCRBY', money, 'charged', charge)
      redis.call('HINCRBY', spent, day, charge)
      if redis.call('HLEN', spent) > DAYS_KEPT_MAX then
        for _, known in ipairs(redis.call('HKEYS', spent)) do
          if tonumber(known) < day - DAYS_KEPT_MAX then
            redis.call('HDEL', spent, known)
          end
        end
      end
    end
  end
  return 1
end

local function standing()
  local limit, remaining, reset, day_limit, day_remaining = 0, 0, 0, 0, 0
  for _, meter in ipairs(meters) do
    local id, rpm, rpd = unpack(meter)
    if rpm > 0 then
      local rest = math.max(0, rpm - window(id))
      if limit == 0 or rest < remaining then
        local oldest = redis.call('LINDEX', 'vc:w:' .. id, 0)
        limit, remaining, reset = rpm, rest, oldest and tonumber(oldest) + WINDOW - now or 0
      end
    end
    if rpd > 0 then
      local rest = math.max(0, rpd - number('GET', 'vc:d:' .. id .. ':' .. today))
      if day_limit == 0 or rest < day_remaining then
        day_limit, day_remaining = rpd, rest
      end
    end
  end
  return { limit, remaining, reset, day_limit, day_remaining }
end

local operations = { admit = admit, open = open, extend = extend, rehold = rehold, settle = settle, standing = standing }
return operations[operation]()

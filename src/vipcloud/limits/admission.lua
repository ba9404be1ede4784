-- The guard's one script: `limits/local.py` in Lua, on the server's clock. Times are in microseconds, days since 1970.
--
-- ARGV: what is asked (msgpack), and in tests the time. What is asked: the subjects ({{meter, rpm, rpd, concurrency}…},
-- {{purse, granted, charged, caps…}…}; a cap that is not set is -1), and the operations, each with its name, the place of
-- its subject, and its details. The answer (msgpack) has each operation's answer, in their order; that of one that failed
-- is a text.
--
-- Keys, each after the prefix `vc:`
--   w:METER      list    times of admission within the window, oldest first
--   d:METER:DAY  string  requests of the day
--   l:METER      zset    running requests by the time that their lease lapses
--   m:PURSE      hash    charged, held: nano-dollars; raised: when what the books say was last more than was known here
--   s:PURSE      hash    charges by day
--   h:PURSE      hash    what each running request holds
--   x:PURSE      zset    these requests by the time that their hold lapses
--   t:REQUEST    string  there for an hour if the request's settlement was told again
--
-- What an operation reads of a meter or a purse is kept for those after it, and what they write is gathered: a call of
-- Redis costs more than an operation does. It is written at the end, of each meter and purse by itself.
--
-- A Lua number is exact up to 2^53: nine million dollars in nano-dollars.

local WINDOW, DAY = 60000000, 86400000000
local OUTPUT_TOKENS_MIN, DAYS_KEPT_MAX, LAPSED_PER_CALL, MARKED_S = 16, 70, 20, 3600
local PURSE_KEPT_S = 40 * DAY / 1000000 -- longer than a month, which caps may be for; whoever comes later is read anew

local call, format = redis.call, string.format
local now
if ARGV[2] then
  now = tonumber(ARGV[2])
else
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
local today = math.floor(now / DAY)
local request, details, meters, purses -- of the operation whose turn it is
local met, opened = {}, {} -- the meters and purses that were looked at, by their names

-- As a command takes it: left to Redis, a number goes by way of its digits behind the point.
local function whole(number)
  return format('%d', number)
end

local function number(command, ...)
  return tonumber(call(command, ...) or 0) or 0
end

-- A meter as it stands, with what is to be written of it. `count`, `day` and `running` are nil until they are asked for.
local function meter_of(id)
  local state = met[id]
  if not state then
    state = { id = id, admitted = 0, leases = {} }
    met[id] = state
  end
  return state
end

local function write_window(state)
  if state.admitted > 0 then
    local key, times, time = 'vc:w:' .. state.id, {}, whole(now)
    for place = 1, state.admitted do
      times[place] = time
    end
    state.admitted = 0
    call('RPUSH', key, unpack(times))
    call('PEXPIRE', key, WINDOW / 1000 + 1000)
  end
end

local function write_leases(state)
  if next(state.leases) then
    local key, scored = 'vc:l:' .. state.id, {}
    for name, lapses in pairs(state.leases) do
      scored[#scored + 1] = whole(lapses)
      scored[#scored + 1] = name
    end
    state.leases = {}
    call('ZADD', key, unpack(scored))
    call('PEXPIRE', key, math.ceil(state.lease / 1000) + 1000)
  end
end

local function write_meter(state)
  write_window(state)
  write_leases(state)
  if state.counted then
    local key = 'vc:d:' .. state.id .. ':' .. today
    call('INCRBY', key, state.counted)
    call('EXPIRE', key, 2 * DAY / 1000000)
  end
end

-- The times of admission in the window: how many, and the oldest.
local function window(state)
  if not state.count then
    local key = 'vc:w:' .. state.id
    local oldest = call('LINDEX', key, 0)
    while oldest and tonumber(oldest) <= now - WINDOW do
      call('LPOP', key)
      oldest = call('LINDEX', key, 0)
    end
    state.count, state.oldest = oldest and call('LLEN', key) or 0, oldest and tonumber(oldest)
  end
  return state.count
end

local function day_count(state)
  if not state.day then
    state.day = number('GET', 'vc:d:' .. state.id .. ':' .. today)
  end
  return state.day
end

local function running(state, most)
  if not state.running then
    state.running = call('ZCARD', 'vc:l:' .. state.id)
  end
  if state.running >= most and not state.swept then
    state.swept = true
    write_leases(state)
    call('ZREMRANGEBYSCORE', 'vc:l:' .. state.id, '-inf', now)
    state.running = call('ZCARD', 'vc:l:' .. state.id)
  end
  return state.running
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

-- A purse as it stands, with what is to be written of it: `held_more`, `charged_more`, `spent` by day, `holds` by request
-- (false: none any more) and when they lapse. `charged` is nil where the purse is not known.
local function purse_of(id)
  local state = opened[id]
  if not state then
    local money = call('HMGET', 'vc:m:' .. id, 'charged', 'held')
    state = { id = id, charged = money[1] and tonumber(money[1]), held = tonumber(money[2] or 0) }
    state.held_more, state.charged_more, state.holds, state.lapses = 0, 0, {}, {}
    opened[id] = state
  end
  return state
end

local function write_spent(state)
  local spent = state.spent
  if spent then
    local key, last = 'vc:s:' .. state.id, nil
    state.spent = nil
    for day, amount in pairs(spent) do
      if call('HINCRBY', key, day, whole(amount)) == amount then -- the first of its day
        last = math.max(last or day, day)
      end
    end
    if last then
      call('EXPIRE', key, PURSE_KEPT_S)
      call('EXPIRE', 'vc:m:' .. state.id, PURSE_KEPT_S)
      if call('HLEN', key) > DAYS_KEPT_MAX then
        for _, known in ipairs(call('HKEYS', key)) do
          if tonumber(known) < last - DAYS_KEPT_MAX then
            call('HDEL', key, known)
          end
        end
      end
    end
  end
end

-- In this order: where one of them fails, what was written before it lapses and changes nothing. Credit that is counted as
-- held, and does not lapse, would be lost to its owner.
local function write_purse(state)
  local id, set, gone, lapses = state.id, {}, {}, {}
  for name, amount in pairs(state.holds) do
    if amount then
      set[#set + 1] = name
      set[#set + 1] = whole(amount)
    else
      gone[#gone + 1] = name
    end
  end
  for name, time in pairs(state.lapses) do
    lapses[#lapses + 1] = whole(time)
    lapses[#lapses + 1] = name
  end
  if #gone > 0 then
    call('ZREM', 'vc:x:' .. id, unpack(gone))
  end
  if #lapses > 0 then
    call('ZADD', 'vc:x:' .. id, unpack(lapses))
  end
  if #gone > 0 then
    call('HDEL', 'vc:h:' .. id, unpack(gone))
  end
  if #set > 0 then
    call('HSET', 'vc:h:' .. id, unpack(set))
  end
  if state.held_more ~= 0 then
    call('HINCRBY', 'vc:m:' .. id, 'held', whole(state.held_more))
  end
  if state.charged_more > 0 then
    call('HINCRBY', 'vc:m:' .. id, 'charged', whole(state.charged_more))
  end
  write_spent(state)
end

-- What a request holds of a purse; false or nil for nothing.
local function hold_of(state, name)
  local held = state.holds[name]
  if held == nil then
    held = call('HGET', 'vc:h:' .. state.id, name)
    held = held and tonumber(held)
  end
  return held
end

local function set_hold(state, name, amount, before)
  local more = (amount or 0) - (before or 0)
  state.holds[name] = amount
  state.held, state.held_more = state.held + more, state.held_more + more
end

local function drop_hold(state, name, before)
  set_hold(state, name, false, before)
  state.lapses[name] = nil
end

local function forget_lapsed_holds(state)
  if not state.swept then
    state.swept = true
    local lapsed = call('ZRANGEBYSCORE', 'vc:x:' .. state.id, '-inf', whole(now), 'LIMIT', 0, LAPSED_PER_CALL)
    for _, name in ipairs(lapsed) do
      if not state.lapses[name] then
        drop_hold(state, name, hold_of(state, name))
      end
    end
  end
end

-- What may still be held of a purse, and what its credit alone would leave; nil where the purse is not known.
local function left(purse, state)
  local id, granted, booked, daily, monthly, total = unpack(purse)
  if not state.charged then
    return nil
  end
  if booked > state.charged then -- the books know of charges that were never told here
    call('HSET', 'vc:m:' .. id, 'charged', whole(booked), 'raised', whole(now))
    state.charged, state.charged_more = booked, 0
  end
  local credit = granted - state.charged
  local rest = credit
  if total >= 0 then
    rest = math.min(rest, total - state.charged)
  end
  if daily >= 0 then
    write_spent(state)
    rest = math.min(rest, daily - number('HGET', 'vc:s:' .. id, today))
  end
  if monthly >= 0 then
    write_spent(state)
    local first, spent = month_begin(today), 0
    for day = first, today + 31 do
      if month_begin(day) == first then
        spent = spent + number('HGET', 'vc:s:' .. id, day)
      end
    end
    rest = math.min(rest, monthly - spent)
  end
  return rest - state.held, credit - state.held
end

-- What the purses cover of an ask, and hold for it: tokens, those held for at first, and the amount; or the refusal.
local function hold()
  local lease, input, price, asked, slice = unpack(details, 2)
  local tokens, all = asked, input + math.ceil(asked * price / 1000)
  if all == 0 then
    return tokens, tokens, 0
  end
  for place, purse in ipairs(purses) do
    local state = purse_of(purse[1])
    forget_lapsed_holds(state)
    local rest, credit = left(purse, state)
    if not rest then
      return nil, { 3, place }
    end
    if all > rest then
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
  local held = input + math.ceil(first * price / 1000)
  for _, purse in ipairs(purses) do
    local state = purse_of(purse[1])
    set_hold(state, request, held)
    state.lapses[request] = now + lease
  end
  return tokens, first, held
end

local function admit()
  local lease = details[2]
  for place, meter in ipairs(meters) do
    local id, rpm, rpd, concurrency = unpack(meter)
    local state = meter_of(id)
    if rpm > 0 then
      local count = window(state)
      if count >= rpm then
        write_window(state)
        return { 1, place, 1, tonumber(call('LINDEX', 'vc:w:' .. id, count - rpm)) + WINDOW - now }
      end
    end
    if rpd > 0 and day_count(state) >= rpd then
      return { 1, place, 2, (today + 1) * DAY - now }
    end
    if concurrency > 0 and running(state, concurrency) >= concurrency then
      return { 1, place, 3, 0 }
    end
  end
  local tokens, first, held = hold() -- the last leg that may refuse: it takes nothing then
  if not tokens then
    return first
  end
  local limit, remaining, reset, day_limit, day_remaining = 0, 0, 0, 0, 0
  for _, meter in ipairs(meters) do
    local id, rpm, rpd, concurrency = unpack(meter)
    local state = meter_of(id)
    if concurrency > 0 then
      state.leases[request], state.lease = now + lease, lease
      state.running = state.running + 1
    end
    if rpm > 0 then
      state.count, state.admitted, state.oldest = state.count + 1, state.admitted + 1, state.oldest or now
      local rest = rpm - state.count
      if limit == 0 or rest < remaining then
        limit, remaining, reset = rpm, rest, state.oldest + WINDOW - now
      end
    end
    if rpd > 0 then
      state.day, state.counted = state.day + 1, (state.counted or 0) + 1
      local rest = rpd - state.day
      if day_limit == 0 or rest < day_remaining then
        day_limit, day_remaining = rpd, rest
      end
    end
  end
  return { 0, tokens, first, held, limit, remaining, reset, day_limit, day_remaining, today }
end

-- A purse that is not known yet begins with what the store says, and with what is held of it by those who run on; to one
-- that is known, what the store says was charged is the least.
local function open()
  for place, purse in ipairs(purses) do
    local id, booked = purse[1], purse[3]
    local state = purse_of(id)
    local new = not state.charged
    local raised = false
    if new then
      local held = 0
      for _, amount in ipairs(call('HVALS', 'vc:h:' .. id)) do
        held = held + tonumber(amount)
      end
      call('HSET', 'vc:m:' .. id, 'held', whole(held))
      state.held = held + state.held_more
      raised = held > 0
    end
    if new or booked > state.charged then
      call('HSET', 'vc:m:' .. id, 'charged', whole(booked))
      state.charged, state.charged_more = booked, 0
      raised = raised or not new
    end
    write_spent(state)
    for day, amount in pairs(details[2][place]) do
      if amount > number('HGET', 'vc:s:' .. id, day) then
        call('HSET', 'vc:s:' .. id, day, whole(amount))
        raised = raised or not new
      end
    end
    if raised then
      call('HSET', 'vc:m:' .. id, 'raised', whole(now))
    end
    call('EXPIRE', 'vc:m:' .. id, PURSE_KEPT_S)
    call('EXPIRE', 'vc:s:' .. id, PURSE_KEPT_S)
  end
  return 1
end

-- Hold for another ask in place of what is held, on the day that the request was admitted.
local function rehold()
  today = details[7]
  local before = {}
  for place, purse in ipairs(purses) do
    local state = purse_of(purse[1])
    local held = hold_of(state, request)
    if held then
      before[place] = held
      set_hold(state, request, false, held)
    end
  end
  local done, tokens, first, held = pcall(hold)
  if done and tokens then
    return { 0, tokens, first, held }
  end
  for place, amount in pairs(before) do
    set_hold(purse_of(purses[place][1]), request, amount)
  end
  return done and first or error(tokens, 0)
end

-- Hold for `amount` in all, on the day that the request was admitted. It may be asked again: an answer may have been lost.
-- What a purse does not know to be held was lost with the server's data, and is held anew; unless the request was settled on
-- another connection, which was read before this one.
local function extend()
  local amount, lease = details[2], details[4]
  today = details[3]
  for _, purse in ipairs(purses) do
    local state = purse_of(purse[1])
    local held = hold_of(state, request)
    if not held and call('EXISTS', 'vc:t:' .. request) == 1 then
      return 1
    end
    local rest = left(purse, state)
    if not rest then
      return 3
    end
    if rest < amount - (held or 0) then
      return 0
    end
  end
  for _, purse in ipairs(purses) do
    local state = purse_of(purse[1])
    local held = hold_of(state, request)
    if not held then
      state.lapses[request] = now + lease
    end
    if not held or held < amount then
      set_hold(state, request, amount, held)
    end
  end
  return 1
end

-- Told again after a lost connection (`again`: how long ago its request ended at most; else 0), a settlement whose hold is
-- gone was heard the first time, or else its hold lapsed, which is answered with a 2, as is one of a purse that is not known.
-- So is one whose charge the books may have told meanwhile: it is not added, for nothing would ever take it back, and is
-- looked up. Where the second telling is heard before the first, or before an extension, that finds a mark of it.
local function settle()
  local charge, day, again = details[2], details[3], details[4]
  local free, problem, heard = true, nil, 1
  for _, meter in ipairs(meters) do
    if meter[4] > 0 then
      local state = meter_of(meter[1])
      local done, gone = pcall(call, 'ZREM', 'vc:l:' .. meter[1], request)
      if not done then -- the charge is counted all the same
        free, problem, gone = false, gone, 0
      end
      if state.leases[request] then
        state.leases[request], gone = nil, 1
      end
      if state.running then
        state.running = state.running - gone
      end
    end
  end
  local mark, marked = 'vc:t:' .. request, nil
  if again > 0 and #purses > 0 then
    call('SET', mark, 1, 'EX', MARKED_S)
  end
  for _, purse in ipairs(purses) do
    local state = purse_of(purse[1])
    local held = hold_of(state, request)
    if charge > 0 and again == 0 and not held and marked == nil then
      marked = call('EXISTS', mark) == 1
    end
    local maybe_booked = again > 0 and charge > 0 and held
      and number('HGET', 'vc:m:' .. state.id, 'raised') >= now - again
    if held then
      drop_hold(state, request, held)
    end
    if maybe_booked or not held and again > 0 or not state.charged then
      heard = 2
    end
    if charge > 0 and not maybe_booked and (held or again == 0 and not marked) and state.charged then
      state.charged, state.charged_more = state.charged + charge, state.charged_more + charge
      state.spent = state.spent or {}
      state.spent[day] = (state.spent[day] or 0) + charge
    end
  end
  return free and heard or error(problem, 0)
end

local function standing()
  local limit, remaining, reset, day_limit, day_remaining = 0, 0, 0, 0, 0
  for _, meter in ipairs(meters) do
    local id, rpm, rpd = unpack(meter)
    local state = meter_of(id)
    if rpm > 0 then
      local rest = math.max(0, rpm - window(state))
      if limit == 0 or rest < remaining then
        limit, remaining, reset = rpm, rest, state.oldest and state.oldest + WINDOW - now or 0
      end
    end
    if rpd > 0 then
      local rest = math.max(0, rpd - day_count(state))
      if day_limit == 0 or rest < day_remaining then
        day_limit, day_remaining = rpd, rest
      end
    end
  end
  return { limit, remaining, reset, day_limit, day_remaining }
end

local function failure(problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end

local operations = { admit = admit, open = open, extend = extend, rehold = rehold, settle = settle, standing = standing }
local subjects, asked = unpack(cmsgpack.unpack(ARGV[1]))
local answers, asked_for = {}, {}
local this_day = today
for turn, operation in ipairs(asked) do
  local subject = subjects[operation[2]]
  meters, purses, details = subject[1], subject[2], operation[3]
  request, today = details[1], this_day
  local done, answer = pcall(operations[operation[1]])
  answers[turn] = done and answer or failure(answer)
  asked_for[turn] = subject
end
today = this_day

-- One that cannot be written is an error of every operation on it, and of no other.
local failed = {} -- by their places, admissions that took something
local function write(write_one, states, part)
  for id, state in pairs(states) do
    local done, problem = pcall(write_one, state)
    if not done then
      for place, subject in ipairs(asked_for) do
        for _, leg in ipairs(subject[part]) do
          if leg[1] == id then
            local answer = answers[place]
            failed[place] = failed[place] or asked[place][1] == 'admit' and type(answer) == 'table' and answer[1] == 0
            answers[place] = failure(problem)
          end
        end
      end
    end
  end
end

-- Take an admission out of what is to be written of its meters.
local function uncount(name, subject)
  for _, meter in ipairs(subject[1]) do
    local id, rpm, rpd, concurrency = unpack(meter)
    local state = met[id]
    if rpm > 0 then
      if state.admitted > 0 then
        state.admitted = state.admitted - 1
      else -- its time, which is that of all in this call, was written to tell one who was refused when to come back
        call('RPOP', 'vc:w:' .. id)
      end
    end
    if rpd > 0 then
      state.counted = state.counted > 1 and state.counted - 1 or nil
    end
    if concurrency > 0 then
      state.leases[name] = nil
      call('ZREM', 'vc:l:' .. id, name)
    end
  end
end

local function release(name, id)
  local held = call('HGET', 'vc:h:' .. id, name)
  if held then
    call('ZREM', 'vc:x:' .. id, name)
    call('HINCRBY', 'vc:m:' .. id, 'held', '-' .. held)
    call('HDEL', 'vc:h:' .. id, name)
  end
end

local function give_back(give, part)
  for place, taken in pairs(failed) do
    local name, subject = asked[place][3][1], asked_for[place]
    if taken and part then
      for _, leg in ipairs(subject[part]) do
        pcall(give, name, leg[1])
      end
    elseif taken then
      pcall(give, name, subject)
    end
  end
end

-- Purses first: what cannot be held for must not be counted, nor keep its place until that lapses.
write(write_purse, opened, 2)
give_back(uncount)
write(write_meter, met, 1)
give_back(release, 2)
return cmsgpack.pack(answers)

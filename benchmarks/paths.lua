-- For wrk: random requests of one kind, or of all four; whatever is not answered by 200 is counted.
-- Arguments: kind, orders, seed.

local threads = {}
local kinds = { "order", "customer", "inventory", "revenue" }
local steps = { "day", "week", "month" }

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  kind, orders = args[1], tonumber(args[2])
  math.randomseed(tonumber(args[3]) + number)
  answered, refused = 0, 0
end

local function day()
  return string.format("20%02d-%02d-%02d", math.random(19, 26), math.random(1, 12), math.random(1, 28))
end

local paths = {
  constant = function() return "/benchmark/constant" end,
  order = function() return "/orders/order-" .. math.random(0, orders - 1) end,
  customer = function() return "/customers/customer-" .. math.random(0, orders / 5 - 1) .. "/orders" end,
  inventory = function() return string.format("/products/sku-%05d/inventory", math.random(0, 9999)) end,
  revenue = function()
    return "/reports/revenue?from=" .. day() .. "&to=" .. day() .. "&by=" .. steps[math.random(3)]
  end,
}

function request()
  local one = kind == "mixed" and kinds[math.random(4)] or kind
  return wrk.format("GET", paths[one]())
end

function response(status)
  if status == 200 then answered = answered + 1 else refused = refused + 1 end
end

function done(summary)
  local answered, refused = 0, 0
  for _, thread in ipairs(threads) do
    answered = answered + thread:get("answered")
    refused = refused + thread:get("refused")
  end
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\n{"answered": %d, "refused": %d, "lost": %d, "seconds": %f}\n',
    answered, refused, lost, summary.duration / 1e6))
end

// The operations of ../effect_core.py, under the same names, done by Effect-TS on Node.
//
//     node effect_core.mjs ROUNDS SCALE DEPTH LINKS
//
// Prints the nanoseconds of each, the best of so many rounds, as JSON.

import { Context, Effect, Fiber } from "effect"

const [rounds, scale, depth, links] = process.argv.slice(2).map(Number)

class NotThere {
  _tag = "NotThere"
}
class Users extends Context.Service()("Users") {}

const users = {}
const services = Context.make(Users, users)
const ready = Effect.succeed(1)
const sync = Effect.sync(() => 1)
// An eager library would take the handler of a success away; this one is met when it runs.
const guarded = Effect.suspend(() => ready).pipe(Effect.catch(() => ready))
const next = (value) => Effect.succeed(value + 1)
const helper = (number) => Effect.gen(function* () {
  return number + (yield* ready)
})
const nested = (levels) => Effect.gen(function* () {
  return yield* levels ? nested(levels - 1) : ready
})
const left = () => {
  let chain = sync
  for (let link = 0; link < links; link++) chain = Effect.flatMap(chain, next)
  return chain
}
const right = (rest) => rest ? Effect.flatMap(sync, () => right(rest - 1)) : sync
const chain = left()

const each = (step) => (repeats) =>
  Effect.runPromise(Effect.gen(function* () {
    for (let number = 0; number < repeats; number++) yield* step(number)
  }))

const cases = [
  ["step: ready effect", each(() => ready), 5_000],
  ["step: sync effect", each(() => sync), 5_000],
  ["step: new succeed", each((number) => Effect.succeed(number)), 5_000],
  ["step: new sync", each((number) => Effect.sync(() => number)), 5_000],
  ["step: bounce (catch_all)", each(() => guarded), 5_000],
  ["do-block in a do-block", each(helper), 5_000],
  [`do-blocks ${depth} deep, each`, each(() => nested(depth)), 20, depth],
  ["service", (repeats) => Effect.runPromise(Effect.provideContext(Effect.gen(function* () {
    for (let number = 0; number < repeats; number++) yield* Users
  }), services)), 5_000],
  ["provide_env + service",
    each(() => Effect.provideContext(Effect.flatMap(Users, Effect.succeed), services)), 5_000],
  ["fail + catch_all", each(() => Effect.fail(new NotThere()).pipe(Effect.catch(() => ready))), 5_000],
  ["ensuring", each(() => Effect.ensuring(ready, sync)), 5_000],
  ["flat_map, each link run", each(() => chain), 10, links],
  ["flat_map, each link made + run", each(left), 10, links],
  ["flat_map to the right, each link", each(() => right(links)), 10, links],
  ["fork + join", each(() => Effect.flatMap(Effect.forkChild(ready), Fiber.join)), 2_000],
  ["from_async", each(() => Effect.promise(async () => 1)), 2_000],
  ["run_sync of a do-block", (repeats) => {
    for (let number = 0; number < repeats; number++) Effect.runSync(helper(number))
  }, 5_000],
  ["await of a do-block", async (repeats) => {
    for (let number = 0; number < repeats; number++) await Effect.runPromise(helper(number))
  }, 2_000],
]

const best = Object.fromEntries(cases.map(([name]) => [name, Infinity]))
for (let round = 0; round < rounds; round++) {
  for (const [name, loop, size, of = 1] of cases) {
    const repeats = Math.max(1, Math.round(size * scale))
    const begin = process.hrtime.bigint()
    await loop(repeats)
    const each = Number(process.hrtime.bigint() - begin) / (repeats * of)
    best[name] = Math.min(best[name], each)
  }
}
console.log(JSON.stringify(best))

// Agent attention of float32 maps: the means of cells of the queries, which are the agents, and both steps of
// attention, position by position, with the scores of a few of them at a time.
//
// Agents lie in the lanes of vectors, positions in the rows of a tile. A head and a part of the positions are one
// thread's for all images, so that the gradients of their bias are its alone. Where a sum goes over all positions (the
// values that agents gather, the gradients of the agents) each part has its own, and they are added up afterwards.
//
// Letters: A agents, L positions, N heads, C channels of a head, P agents rounded up to whole vectors.

#include "ops/_products.h"

namespace {

constexpr int TILE = 64;  // positions whose scores lie in the nearest cache
constexpr int MOST_AGENTS = 128;

}  // namespace

// As agent_native.py fills it.
struct AgentCall {
  const float *of_keys, *of_queries;      // the biases, (N, A, L)
  float *grad_of_keys, *grad_of_queries;  // their gradients
  float* sums;                            // (B, N, 2, P): each agent's largest score, and what makes its weights' sum 1
  float* space;
  int64_t images, heads, agents, positions, parts, threads;
  int64_t prefix, height, width, high, wide;  // of the positions, the first ones and the map; agents on a grid
  View query, key, value, out;  // (B, L, N, C); `out` is added to, in the backward pass it is the gradient
  View agent, gathered;         // (B, A, N, C)
  View grad_query, grad_key, grad_value, grad_agent;
};

namespace {

template <int V>
struct Agents {
  static constexpr int C = V * LANES;
  const AgentCall& call;
  const float scale;
  const int count, padded;
  const int64_t length, units, groups, matrix;  // of a part, their number, of heads and parts, numbers of A x C

  Agents(const AgentCall& call, float scale)
      : call(call),
        scale(scale),
        count(call.agents),
        padded(whole_vectors(call.agents)),
        length((call.positions + call.parts - 1) / call.parts),
        units(call.images * call.heads),
        groups(call.heads * call.parts),
        matrix(int64_t(padded) * C) {}

  // Calls `run(position)` for the cell of an agent, and returns 1 / their number.
  template <typename Run>
  INLINE float by_cell(int a, Run run) const {
    const int64_t i = a / call.wide, j = a % call.wide;
    const int64_t top = i * call.height / call.high, bottom = ((i + 1) * call.height - 1) / call.high + 1;
    const int64_t left = j * call.width / call.wide, right = ((j + 1) * call.width - 1) / call.wide + 1;
    for (int64_t y = top; y < bottom; y++)
      for (int64_t x = left; x < right; x++) run(call.prefix + y * call.width + x);
    return 1.0f / ((bottom - top) * (right - left));
  }

  void pool(int64_t unit) const {
    const View queries = call.query.of(unit / call.heads, unit % call.heads);
    const View agents = call.agent.of(unit / call.heads, unit % call.heads);
    for (int a = 0; a < count; a++) {
      Channels<V> sum;
      const float share = by_cell(a, [&](int64_t l) { sum = sum + Channels<V>(queries.at(l)); });
      (sum * share).store_to(agents.at(a));
    }
  }

  void add_pooled(int64_t unit) const {
    const View to_queries = call.grad_query.of(unit / call.heads, unit % call.heads);
    const View to_agents = call.grad_agent.of(unit / call.heads, unit % call.heads);
    for (int a = 0; a < count; a++) {
      const Channels<V> own = Channels<V>(to_agents.at(a)) * by_cell(a, [](int64_t) {});
      by_cell(a, [&](int64_t l) { (Channels<V>(to_queries.at(l)) + own).store_to(to_queries.at(l)); });
    }
  }

  // What lies in `space`: of each unit four matrices and a row, of each unit and part two matrices and two rows, of
  // each group the bias of its positions and its gradient.
  int64_t of_unit() const { return 4 * matrix + padded; }
  int64_t of_part() const { return 2 * matrix + 2 * padded; }
  int64_t of_group() const { return 2 * length * padded; }
  int64_t size() const { return units * of_unit() + units * call.parts * of_part() + groups * of_group(); }
  float* unit_space(int64_t unit) const { return call.space + unit * of_unit(); }
  float* part_space(int64_t unit, int64_t part) const {
    return call.space + units * of_unit() + (unit * call.parts + part) * of_part();
  }
  float* group_space(int64_t group) const {
    return call.space + units * (of_unit() + call.parts * of_part()) + group * of_group();
  }
  Turned<V> turned(int64_t unit, int which) const { return {unit_space(unit) + which * matrix, count}; }
  View rows(float* data) const { return {data, 0, C, 0}; }
  int64_t unit(int64_t image, int64_t head) const { return image * call.heads + head; }

  // Bias of positions `first` ... `end`, from (A, L) to a row of P for each position.
  INLINE void take_bias(float* out, const float* table, int64_t first, int64_t end, float beyond) const {
    for (int64_t l = first; l < end; l += LANES)
      for (int a = 0; a < padded; a += LANES) {
        Vec block[LANES];
        for (int i = 0; i < LANES; i++) {
          block[i] = all(beyond);
          const float* row = table + (a + i) * call.positions + l;
          if (a + i < count && l + LANES <= call.positions)
            block[i] = load(row);
          else if (a + i < count)
            for (int j = 0; l + j < end; j++) block[i][j] = row[j];
        }
        turn(block);
        for (int i = 0; i < LANES && l + i < end; i++) at(out + (l + i - first) * padded + a) = block[i];
      }
  }

  // The way back.
  INLINE void give_bias(const float* from, float* table, int64_t first, int64_t end) const {
    for (int64_t l = first; l < end; l += LANES)
      for (int a = 0; a < padded; a += LANES) {
        Vec block[LANES];
        for (int i = 0; i < LANES; i++) block[i] = l + i < end ? at(from + (l + i - first) * padded + a) : Vec{};
        turn(block);
        for (int i = 0; i < LANES && a + i < count; i++) {
          float* row = table + (a + i) * call.positions + l;
          if (l + LANES <= end)
            store(row, block[i]);
          else
            for (int j = 0; l + j < end; j++) row[j] = block[i][j];
        }
      }
  }

  // Calls `run(image, head, part, first, end)` for the images of a group, between what its bias needs.
  template <typename Run>
  void with_bias(int64_t group, const float* table, float* gradient, float beyond, Run run) const {
    const int64_t head = group / call.parts, part = group % call.parts;
    const int64_t first = part * length, end = std::min(first + length, call.positions);
    float *bias = group_space(group), *of_bias = bias + length * padded;
    if (first < end) take_bias(bias, table + head * count * call.positions, first, end, beyond);
    if (gradient) std::fill(of_bias, of_bias + length * padded, 0.0f);
    for (int64_t image = 0; image < call.images; image++) run(image, head, part, first, end, bias, of_bias);
    if (gradient && first < end) give_bias(of_bias, gradient + head * count * call.positions, first, end);
  }

  // Calls `run(l, n)` for tiles of n positions from l on.
  template <typename Run>
  INLINE void by_tiles(int64_t first, int64_t end, Run run) const {
    for (int64_t l = first; l < end; l += TILE) run(l, int(std::min<int64_t>(TILE, end - l)));
  }

  void agents_see_keys(int64_t group) const {
    with_bias(group, call.of_keys, nullptr, 0.0f,
              [&](int64_t image, int64_t head, int64_t part, int64_t first, int64_t end, const float* bias, float*) {
                const View k = call.key.of(image, head), v = call.value.of(image, head);
                const Turned<V> agents = turned(unit(image, head), 0);
                float* sum = part_space(unit(image, head), part);
                float *largest = sum + matrix, *total = largest + padded;
                alignas(64) float scores[TILE * MOST_AGENTS], factor[MOST_AGENTS];
                std::fill(sum, sum + matrix, 0.0f);
                std::fill(largest, largest + padded, -INFINITY);
                std::fill(total, total + padded, 0.0f);
                by_tiles(first, end, [&](int64_t l, int n) {
                  dots<V>(scores, agents, k.from(l), scale, n);
                  for (int a = 0; a < padded; a += LANES) {
                    Vec top = at(largest + a), added = {};
                    for (int i = 0; i < n; i++)
                      top = Largest()(top, at(scores + i * padded + a) += at(bias + (l - first + i) * padded + a));
                    for (int i = 0; i < n; i++) {
                      Vec& score = at(scores + i * padded + a);
                      added += score = exponential(score - top);
                    }
                    at(factor + a) = exponential(at(largest + a) - top);
                    at(total + a) = at(total + a) * at(factor + a) + added;
                    at(largest + a) = top;
                  }
                  gather<V>(sum, factor, scores, padded, v.from(l), count, n);
                });
              });
  }

  void join_gathered(int64_t unit) const {
    const int64_t image = unit / call.heads, head = unit % call.heads;
    const View gathered = call.gathered.of(image, head);
    float *largest = call.sums + 2 * unit * padded, *share = largest + padded;
    std::fill(largest, largest + padded, -INFINITY);
    for (int64_t part = 0; part < call.parts; part++)
      for (int a = 0; a < padded; a += LANES)
        at(largest + a) = Largest()(at(largest + a), at(part_space(unit, part) + matrix + a));
    alignas(64) float factor[MOST_AGENTS];
    std::fill(share, share + padded, 0.0f);
    for (int64_t part = 0; part < call.parts; part++) {
      const float* sum = part_space(unit, part);
      for (int a = 0; a < padded; a += LANES) {
        at(factor + a) = exponential(at(sum + matrix + a) - at(largest + a));
        at(share + a) += at(sum + matrix + padded + a) * at(factor + a);
      }
      for (int a = 0; a < count; a++) {
        const Channels<V> own = Channels<V>(sum + a * C) * factor[a];
        (part ? own + Channels<V>(gathered.at(a)) : own).store_to(gathered.at(a));
      }
    }
    for (int a = 0; a < padded; a += LANES) at(share + a) = 1.0f / at(share + a);
    for (int a = 0; a < count; a++) (Channels<V>(gathered.at(a)) * share[a]).store_to(gathered.at(a));
  }

  void queries_see_agents(int64_t group) const {
    with_bias(group, call.of_queries, nullptr, -INFINITY,
              [&](int64_t image, int64_t head, int64_t, int64_t first, int64_t end, const float* bias, float*) {
                const View q = call.query.of(image, head), out = call.out.of(image, head);
                const View gathered = call.gathered.of(image, head);
                const Turned<V> agents = turned(unit(image, head), 0);
                alignas(64) float weights[TILE * MOST_AGENTS];
                float shares[TILE];
                by_tiles(first, end, [&](int64_t l, int n) {
                  dots<V>(weights, agents, q.from(l), scale, n);
                  for (int i = 0; i < n; i++)
                    shares[i] = exponentials(weights + i * padded, bias + (l - first + i) * padded, padded);
                  spread<V>(weights, padded, gathered, count, n,
                            [&](int i, const Channels<V>& sum) __attribute__((always_inline)) {
                              (sum * shares[i] + Channels<V>(out.at(l + i))).store_to(out.at(l + i));
                            });
                });
              });
  }

  void queries_backward(int64_t group) const {
    with_bias(
        group, call.of_queries, call.grad_of_queries, -INFINITY,
        [&](int64_t image, int64_t head, int64_t part, int64_t first, int64_t end, const float* bias, float* of_bias) {
          const View q = call.query.of(image, head), g = call.out.of(image, head),
                     to_q = call.grad_query.of(image, head);
          const Turned<V> agents = turned(unit(image, head), 0), gathered = turned(unit(image, head), 1);
          float *to_gathered = part_space(unit(image, head), part), *to_agents = to_gathered + matrix;
          alignas(64) float weights[TILE * MOST_AGENTS], scores[TILE * MOST_AGENTS];
          std::fill(to_gathered, to_gathered + 2 * matrix, 0.0f);
          by_tiles(first, end, [&](int64_t l, int n) {
            dots<V>(weights, agents, q.from(l), scale, n);
            dots<V>(scores, gathered, g.from(l), 1.0f, n);
            for (int i = 0; i < n; i++) {
              float *row = weights + i * padded, *score = scores + i * padded;
              const int64_t place = (l - first + i) * padded;
              const float share = exponentials(row, bias + place, padded);
              for (int a = 0; a < padded; a += LANES) at(row + a) *= share;
              softmax_gradient(score, row, padded);
              for (int a = 0; a < padded; a += LANES) at(of_bias + place + a) += at(score + a);
            }
            gather<V>(to_gathered, nullptr, weights, padded, g.from(l), count, n);
            gather<V>(to_agents, nullptr, scores, padded, q.from(l), count, n);
            spread<V>(scores, padded, call.agent.of(image, head), count, n,
                      [&](int i, const Channels<V>& sum)
                          __attribute__((always_inline)) { (sum * scale).store_to(to_q.at(l + i)); });
          });
        });
  }

  // Of each unit lie in its space the agents and what they gathered, turned, the latter's gradient as it is and turned,
  // and for each agent the product of the two.
  void turn_both(int64_t unit) const {
    const int64_t image = unit / call.heads, head = unit % call.heads;
    Turned<V>(unit_space(unit), call.agent.of(image, head), count);
    if (call.grad_agent.data) Turned<V>(unit_space(unit) + matrix, call.gathered.of(image, head), count);
  }

  void join_gradients(int64_t unit) const {
    const View gathered = call.gathered.of(unit / call.heads, unit % call.heads);
    float *sum = unit_space(unit) + 2 * matrix, *means = unit_space(unit) + 4 * matrix;
    std::fill(means, means + padded, 0.0f);
    for (int a = 0; a < count; a++) {
      Channels<V> own;
      for (int64_t part = 0; part < call.parts; part++) own = own + Channels<V>(part_space(unit, part) + a * C);
      own.store_to(sum + a * C);
      means[a] = joined(Sum(), own.times(gathered.at(a)));
    }
    Turned<V>(unit_space(unit) + 3 * matrix, rows(sum), count);
  }

  void keys_backward(int64_t group) const {
    with_bias(
        group, call.of_keys, call.grad_of_keys, 0.0f,
        [&](int64_t image, int64_t head, int64_t part, int64_t first, int64_t end, const float* bias, float* of_bias) {
          const View k = call.key.of(image, head), v = call.value.of(image, head);
          const View to_k = call.grad_key.of(image, head), to_v = call.grad_value.of(image, head);
          const int64_t own = unit(image, head);
          const Turned<V> agents = turned(own, 0), of_gathered = turned(own, 3);
          const View gradient = rows(unit_space(own) + 2 * matrix);
          const float *means = unit_space(own) + 4 * matrix, *largest = call.sums + 2 * own * padded;
          const float* share = largest + padded;
          float* to_agents = part_space(own, part) + matrix;
          alignas(64) float weights[TILE * MOST_AGENTS], scores[TILE * MOST_AGENTS];
          by_tiles(first, end, [&](int64_t l, int n) {
            dots<V>(weights, agents, k.from(l), scale, n);
            dots<V>(scores, of_gathered, v.from(l), 1.0f, n);
            for (int i = 0; i < n; i++)
              for (int a = 0; a < padded; a += LANES) {
                const int64_t place = (l - first + i) * padded + a;
                Vec &weight = at(weights + i * padded + a), &score = at(scores + i * padded + a);
                weight = exponential(weight + at(bias + place) - at(largest + a)) * at(share + a);
                at(of_bias + place) += score = weight * (score - at(means + a));
              }
            gather<V>(to_agents, nullptr, scores, padded, k.from(l), count, n);
            spread<V>(scores, padded, call.agent.of(image, head), count, n,
                      [&](int i, const Channels<V>& sum)
                          __attribute__((always_inline)) { (sum * scale).store_to(to_k.at(l + i)); });
            spread<V>(weights, padded, gradient, count, n,
                      [&](int i, const Channels<V>& sum)
                          __attribute__((always_inline)) { sum.store_to(to_v.at(l + i)); });
          });
        });
  }

  void join_agents(int64_t unit) const {
    const View to = call.grad_agent.of(unit / call.heads, unit % call.heads);
    for (int a = 0; a < count; a++) {
      Channels<V> own;
      for (int64_t part = 0; part < call.parts; part++)
        own = own + Channels<V>(part_space(unit, part) + matrix + a * C);
      (own * scale).store_to(to.at(a));
    }
  }
};

template <int V>
void forward(const AgentCall& call, float scale) {
  const Agents<V> work(call, scale);
#pragma omp parallel num_threads(call.threads)
  {
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < work.units; unit++) {
      work.pool(unit);
      work.turn_both(unit);
    }
#pragma omp for schedule(static)
    for (int64_t group = 0; group < work.groups; group++) work.agents_see_keys(group);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < work.units; unit++) work.join_gathered(unit);
#pragma omp for schedule(static)
    for (int64_t group = 0; group < work.groups; group++) work.queries_see_agents(group);
  }
}

template <int V>
void backward(const AgentCall& call, float scale) {
  const Agents<V> work(call, scale);
#pragma omp parallel num_threads(call.threads)
  {
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < work.units; unit++) work.turn_both(unit);
#pragma omp for schedule(static)
    for (int64_t group = 0; group < work.groups; group++) work.queries_backward(group);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < work.units; unit++) work.join_gradients(unit);
#pragma omp for schedule(static)
    for (int64_t group = 0; group < work.groups; group++) work.keys_backward(group);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < work.units; unit++) {
      work.join_agents(unit);
      work.add_pooled(unit);
    }
  }
}

}  // namespace

// How many numbers `space` is to hold, for all calls of these sizes.
extern "C" int64_t agent_space(const AgentCall* call, int channels) {
  int64_t size = 0;
  by_channels(channels, [&](auto parts) { size = Agents<decltype(parts)::value>(*call, 1.0f).size(); });
  return size;
}

// Return 0, and do nothing, for a number of channels they are not made for.
extern "C" int agent_forward(const AgentCall* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { forward<decltype(parts)::value>(*call, scale); });
}

extern "C" int agent_backward(const AgentCall* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { backward<decltype(parts)::value>(*call, scale); });
}

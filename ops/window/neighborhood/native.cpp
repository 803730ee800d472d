// Neighborhood attention of float32 maps: for each query the few keys it sees, with no copy of them and no mask.
//
// A map is seen as rows of its last axis. The keys of a query are lines of `run` positions in some rows; which rows
// and where in them a line begins is told by the tables that native.py makes. Forward and backward pass go query by
// query, the gradients of keys and values key by key, over the queries that see it, whose weights lie in `space`.
//
// A map whose queries all see all of it is a single row, and its keys are turned once for all of them.

#include "ops/_products.h"

namespace {

constexpr int MOST_KEYS = 512, MOST_WHOLE = 128, MOST_ENTRIES = 4096, BESIDE = 8;
constexpr int FEW = LANES / 4;

}  // namespace

// As native.py fills them.
struct Map {
  int32_t rows, length, lines, run, step, entries, whole;  // of the last axis are length, run and step
  const int32_t *line_position, *line_entry;  // of each line of each row: position and entry of the bias it begins at
  const int32_t *start, *entry;               // of each query of a row: what is added to those
  const int32_t *row_seen, *seen_by_row;      // lines that see a row: up to where each row's are, pairs (row, line)
  const int32_t *first, *times;               // of each key of a row: the first query that sees it, and how many do
  const int32_t *slot, *start_slot;           // its place in a run is its slot without the query's first one
  const int32_t *row_order, *order;           // of rows and in a row: those that see the same keys follow each other
};

namespace {

// The keys that the queries of one row see, and their part of the bias. Lines of it are moved by eights, of which those
// behind the line are overwritten by the next one.
struct Keys {
  alignas(64) float bias[MOST_KEYS + BESIDE];
  float table[MOST_ENTRIES + BESIDE];
  int64_t keys[MOST_KEYS], values[MOST_KEYS];  // where they lie, from where the first of a query lies
  const int32_t* line_entry;
  const bool biased;
  const int lines, run, count, padded;
  int entry = -1;

  INLINE Keys(const Map& map, int row, int64_t key_step, int64_t value_step, const float* given)
      : line_entry(map.line_entry + row * map.lines),
        biased(given),
        lines(map.lines),
        run(map.run),
        count(lines * run),
        padded(whole_vectors(count)) {
    if (biased) std::copy(given, given + map.entries, table);
    for (int i = 0; i < padded; i++) {
      const int j = i < count ? i : 0;
      const int64_t position = map.line_position[row * lines + j / run] + j % run * map.step;
      keys[i] = position * key_step;
      values[i] = position * value_step;
      bias[i] = i < count ? 0.0f : -INFINITY;
    }
  }

  INLINE void take_bias(int wanted) {
    if (!biased || wanted == entry) return;
    entry = wanted;
    for (int line = 0; line < lines; line++)
      for (int j = 0; j < run; j += 8) {
        const Eight of_table = eight(table + line_entry[line] + entry + j);
        eight(bias + line * run + j) = below(run - j) ? of_table : Eight{} - INFINITY;
      }
  }

  // The transpose of `take_bias`.
  INLINE void add_to(float* of_table, const float* scores, int at_entry) const {
    for (int line = 0; line < lines; line++)
      for (int j = 0; j < run; j += 8) {
        const Eight some = eight(scores + line * run + j);
        eight(of_table + line_entry[line] + at_entry + j) += below(run - j) ? some : Eight{};
      }
  }

  INLINE float weigh(float* scores, int at_entry) {
    take_bias(at_entry);
    return exponentials(scores, bias, padded);
  }
};

// Products of one vector with the `count` at places[...] behind `from`.
template <int V>
INLINE void dots(float* out, const Channels<V>& x, const float* from, const int64_t* places, int count) {
  int i = 0;
  for (; i + FEW < count; i += LANES)
    at(out + i) = sums([&](int j) __attribute__((always_inline)) { return x.times(from + places[i + j]); });
  if (i == whole_vectors(count)) return;
  Vec rest = {};
  for (int j = 0; i + j < count; j++) rest[j] = joined(Sum(), x.times(from + places[i + j]));
  at(out + i) = rest;
}

// Their sum, weighted; four sums, so that none waits for the one before. Beyond `count` weights are 0.
template <int V>
INLINE Channels<V> weighted(const float* weights, const float* from, const int64_t* places, int count) {
  Channels<V> out[4];
  for (int i = 0; i < count; i += 4)
    for (int j = 0; j < 4; j++) out[j].add(weights[i + j], Channels<V>(from + places[i + j]));
  return (out[0] + out[1]) + (out[2] + out[3]);
}

template <int V>
void forward_row(const Map& map, int row, View q, View k, View v, View out, float scale, const float* table) {
  Keys seen(map, row, k.position, v.position, table);
  alignas(64) float weights[MOST_KEYS];
  for (int i = 0; i < map.length; i++) {
    const int x = map.order[i];
    const int64_t position = int64_t(row) * map.length + x;
    const Channels<V> query = Channels<V>(q.at(position)) * scale;
    dots(weights, query, k.at(map.start[x]), seen.keys, seen.count);
    const float share = seen.weigh(weights, map.entry[x]);
    const auto sum = weighted<V>(weights, v.at(map.start[x]), seen.values, seen.count);
    (sum * share).store_to(out.at(position));
  }
}

struct Gradients {
  View out, q, k, v;
  float* table;  // of one row, null where it is not wanted
};

template <int V>
void queries_backward(const Map& map, int row, View q, View k, View v, const Gradients& to, float scale,
                      const float* table, float* all_weights, float* all_scores) {
  Keys seen(map, row, k.position, v.position, table);
  alignas(64) float sums[MOST_KEYS + BESIDE] = {};
  if (to.table) std::fill(to.table, to.table + map.entries + BESIDE, 0.0f);
  for (int i = 0; i < map.length; i++) {
    const int x = map.order[i];
    const int64_t position = int64_t(row) * map.length + x;
    float *weights = all_weights + position * seen.padded, *scores = all_scores + position * seen.padded;
    const float *keys = k.at(map.start[x]), *values = v.at(map.start[x]);
    dots(weights, Channels<V>(q.at(position)) * scale, keys, seen.keys, seen.count);
    dots(scores, Channels<V>(to.out.at(position)), values, seen.values, seen.count);
    const float share = seen.weigh(weights, map.entry[x]);
    for (int j = 0; j < seen.padded; j += LANES) at(weights + j) *= share;
    softmax_gradient(scores, weights, seen.padded);
    (weighted<V>(scores, keys, seen.keys, seen.count) * scale).store_to(to.q.at(position));
    if (!to.table) continue;
    for (int j = 0; j < seen.padded; j += LANES) at(sums + j) += at(scores + j);
    if (i + 1 < map.length && map.entry[map.order[i + 1]] == map.entry[x]) continue;
    seen.add_to(to.table, sums, map.entry[x]);
    std::fill(sums, sums + seen.padded, 0.0f);
  }
}

template <int V>
void keys_backward(const Map& map, int row, View q, const Gradients& to, float scale, const float* weights,
                   const float* scores) {
  const int padded = whole_vectors(map.lines * map.run), end = map.row_seen[row + 1];
  for (int i = 0; i < map.length; i++) {
    const int x = map.order[i];
    Channels<V> of_key[2], of_value[2];
    auto add = [&](int which, int line) __attribute__((always_inline)) {
      const int64_t first = int64_t(map.seen_by_row[2 * line]) * map.length;
      const int place = map.seen_by_row[2 * line + 1] * map.run;
      for (int j = 0, from = map.first[x]; j < map.times[x]; j++, from += map.step) {
        const int64_t position = first + from;
        const int64_t score = position * padded + place + map.slot[x] - map.start_slot[from];
        of_key[which].add(scores[score], Channels<V>(q.at(position)));
        of_value[which].add(weights[score], Channels<V>(to.out.at(position)));
      }
    };
    for (int line = map.row_seen[row]; line < end; line++) add(line % 2, line);
    const int64_t position = int64_t(row) * map.length + x;
    ((of_key[0] + of_key[1]) * scale).store_to(to.k.at(position));
    (of_value[0] + of_value[1]).store_to(to.v.at(position));
  }
}

// A map whose queries all see all of it: its keys turned serve all queries.
template <int V>
void whole_forward(const Map& map, View q, View k, View v, View out, float scale, const float* table) {
  const int count = map.length;
  alignas(64) float space[V * LANES * MOST_WHOLE];
  const Turned<V> keys(space, k, count);
  Keys seen(map, 0, 0, 0, table);
  by_groups(count, [&](int x, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    alignas(64) float weights[N * MOST_WHOLE];
    float shares[N];
    Channels<V> sum[N];
    keys.template dots<N>(weights, q.from(x), scale);
    for (int i = 0; i < N; i++) shares[i] = seen.weigh(weights + i * seen.padded, map.entry[x + i]);
    weighted<V, N>(sum, weights, seen.padded, 1, v, count);
    for (int i = 0; i < N; i++) (sum[i] * shares[i]).store_to(out.at(x + i));
  });
}

template <int V>
void whole_backward(const Map& map, View q, View k, View v, const Gradients& to, float scale, const float* table,
                    float* all_weights, float* all_scores) {
  const int count = map.length;
  alignas(64) float space[2][V * LANES * MOST_WHOLE];
  const Turned<V> keys(space[0], k, count), values(space[1], v, count);
  Keys seen(map, 0, 0, 0, table);
  const int padded = seen.padded;
  if (to.table) std::fill(to.table, to.table + map.entries + BESIDE, 0.0f);
  by_groups(count, [&](int x, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    float *weights = all_weights + x * padded, *scores = all_scores + x * padded;
    Channels<V> sum[N];
    keys.template dots<N>(weights, q.from(x), scale);
    values.template dots<N>(scores, to.out.from(x), 1.0f);
    for (int i = 0; i < N; i++) {
      float *own = weights + i * padded, *own_scores = scores + i * padded;
      const float share = seen.weigh(own, map.entry[x + i]);
      for (int j = 0; j < padded; j += LANES) at(own + j) *= share;
      softmax_gradient(own_scores, own, padded);
      if (to.table) seen.add_to(to.table, own_scores, map.entry[x + i]);
    }
    weighted<V, N>(sum, scores, padded, 1, k, count);
    for (int i = 0; i < N; i++) (sum[i] * scale).store_to(to.q.at(x + i));
  });
  by_groups(count, [&](int x, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    Channels<V> of_key[N], of_value[N];
    weighted<V, N>(of_key, all_scores + x, 1, padded, q, count);
    weighted<V, N>(of_value, all_weights + x, 1, padded, to.out, count);
    for (int i = 0; i < N; i++) {
      (of_key[i] * scale).store_to(to.k.at(x + i));
      of_value[i].store_to(to.v.at(x + i));
    }
  });
}

// What native.py hands over, in this order.
struct Call {
  const Map* map;
  const float* table;     // of the bias, (N, entries), or null
  float* table_gradient;  // likewise, null where it is not wanted
  float* table_space;     // for its parts, (B, N, rows, entries + BESIDE)
  float* space;           // for the backward pass, 2 * chunk * positions * padded + BESIDE
  int64_t images, heads, chunk, threads;
  View query, key, value, out, grad_query, grad_key, grad_value;  // in the backward pass `out` is its gradient
};

template <int V>
void forward(const Call& call, float scale) {
  const Map& map = *call.map;
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t task = 0; task < call.images * call.heads * map.rows; task++) {
    const int row = map.row_order[task % map.rows], unit = task / map.rows, head = unit % call.heads,
              image = unit / call.heads;
    const View q = call.query.of(image, head), k = call.key.of(image, head), v = call.value.of(image, head);
    const View out = call.out.of(image, head);
    const float* table = call.table ? call.table + head * map.entries : nullptr;
    if (map.whole)
      whole_forward<V>(map, q, k, v, out, scale, table);
    else
      forward_row<V>(map, row, q, k, v, out, scale, table);
  }
}

template <int V>
void backward(const Call& call, float scale) {
  const Map& map = *call.map;
  const int64_t units = call.images * call.heads;
  const int64_t size = int64_t(map.rows) * map.length * whole_vectors(map.lines * map.run);
  const int64_t table_step = map.entries + BESIDE;
  // first all queries of some images and heads, then all their keys
  auto run = [&](int64_t first, int64_t task, bool of_keys) {
    const int row = map.row_order[task % map.rows], place = task / map.rows, unit = first + place;
    const int head = unit % call.heads, image = unit / call.heads;
    const View q = call.query.of(image, head), k = call.key.of(image, head), v = call.value.of(image, head);
    const Gradients to = {
        call.out.of(image, head), call.grad_query.of(image, head), call.grad_key.of(image, head),
        call.grad_value.of(image, head),
        call.table_gradient ? call.table_space + (int64_t(unit) * map.rows + row) * table_step : nullptr};
    const float* table = call.table ? call.table + head * map.entries : nullptr;
    float *weights = call.space + 2 * place * size, *scores = weights + size;
    if (of_keys)
      keys_backward<V>(map, row, q, to, scale, weights, scores);
    else if (map.whole)
      whole_backward<V>(map, q, k, v, to, scale, table, weights, scores);
    else
      queries_backward<V>(map, row, q, k, v, to, scale, table, weights, scores);
  };
#pragma omp parallel num_threads(call.threads)
  {
    for (int64_t first = 0; first < units; first += call.chunk) {
      const int64_t tasks = std::min(call.chunk, units - first) * map.rows;
#pragma omp for schedule(static)
      for (int64_t task = 0; task < tasks; task++) run(first, task, false);
      if (map.whole) continue;
#pragma omp for schedule(static)
      for (int64_t task = 0; task < tasks; task++) run(first, task, true);
    }
    if (call.table_gradient) {
#pragma omp for schedule(static)
      for (int64_t head = 0; head < call.heads; head++) {
        float* sum = call.table_gradient + head * map.entries;
        std::fill(sum, sum + map.entries, 0.0f);
        for (int64_t unit = head; unit < units; unit += call.heads)
          for (int64_t row = unit * map.rows; row < (unit + 1) * map.rows; row++)
            for (int i = 0; i < map.entries; i++) sum[i] += call.table_space[row * table_step + i];
      }
    }
  }
}

}  // namespace

extern "C" int interface() { return 3; }  // as in ops/_native.py: to be raised when Map, View or Call change

// Return 0, and do nothing, for a number of channels they are not made for.
extern "C" int neighborhood_forward(const Call* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { forward<decltype(parts)::value>(*call, scale); });
}

extern "C" int neighborhood_backward(const Call* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { backward<decltype(parts)::value>(*call, scale); });
}

// Neighborhood attention of float32 maps: for each query the few keys it sees, with no copy of them and no mask.
//
// A map is seen as rows of its last axis. The keys of a query are lines of `run` positions in some rows; which rows
// and where in them a line begins is told by the tables that native.py makes. Forward and backward pass go query by
// query, the gradients of keys and values key by key, over the queries that see it, whose weights lie in `space`.
//
// A map whose queries all see all of it is a single row, and its keys are turned once for all of them.

#include <type_traits>

#include "ops/_vectors.h"

namespace {

constexpr int MOST_KEYS = 512, MOST_WHOLE = 128, MOST_ENTRIES = 4096, BESIDE = 8;
constexpr int FEW = LANES / 4, TOGETHER = LANES / 4;

}  // namespace

// As native.py fills them.
struct Map {
  int32_t rows, length, lines, run, step, entries, whole;  // of the last axis are length, run and step
  const int32_t *line_position, *line_entry;  // of each line of each row: position and entry of the bias it begins at
  const int32_t *start, *entry;               // of each query of a row: what is added to those
  const int32_t *row_seen, *seen_by_row;      // lines that see a row: up to where each row's are, pairs (row, line)
  const int32_t *first, *times;               // of each key of a row: the first query that sees it, and how many do
  const int32_t *slot, *start_slot;           // its place in a run is its slot without the query's first one
};
struct View {  // (B, positions, N, C)
  float* data;
  int64_t image, position, head;
};

namespace {

INLINE View of(const View& x, int image, int head) {
  return {x.data + image * x.image + head * x.head, 0, x.position, 0};
}

template <int V>
struct Channels {
  Vec part[V];
  INLINE Channels() : part{} {}
  INLINE explicit Channels(const float* from) {
    for (int i = 0; i < V; i++) part[i] = load(from + i * LANES);
  }
  INLINE Channels operator*(float factor) const {
    Channels out;
    for (int i = 0; i < V; i++) out.part[i] = part[i] * factor;
    return out;
  }
  INLINE Channels operator+(const Channels& other) const {
    Channels out;
    for (int i = 0; i < V; i++) out.part[i] = part[i] + other.part[i];
    return out;
  }
  INLINE void add(float weight, const float* from) {
    for (int i = 0; i < V; i++) part[i] += weight * load(from + i * LANES);
  }
  INLINE void add(float weight, const Channels& other) {
    for (int i = 0; i < V; i++) part[i] += weight * other.part[i];
  }
  INLINE Vec times(const float* from) const {
    Vec out = part[0] * load(from);
    for (int i = 1; i < V; i++) out += part[i] * load(from + i * LANES);
    return out;
  }
  INLINE void store_to(float* to) const {
    for (int i = 0; i < V; i++) store(to + i * LANES, part[i]);
  }
};

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

  // Turns scores into e ** (score + bias - the largest), and returns what makes their sum 1.
  INLINE float weigh(float* scores, int at_entry) {
    take_bias(at_entry);
    Vec top = all(-INFINITY);
    for (int i = 0; i < padded; i += LANES) top = Largest()(top, at(scores + i) += at(bias + i));
    const float largest = joined(Largest(), top);
    Vec sum = {};
    for (int i = 0; i < padded; i += LANES) sum += at(scores + i) = exponential(at(scores + i) - largest);
    return 1.0f / joined(Sum(), sum);
  }
};

// Turns the gradients of the weights into those of the scores. Weights beyond the last key are 0.
INLINE void softmax_gradient(float* gradients, const float* weights, int padded) {
  Vec sum = {};
  for (int i = 0; i < padded; i += LANES) sum += at(weights + i) * at(gradients + i);
  const float mean = joined(Sum(), sum);
  for (int i = 0; i < padded; i += LANES) at(gradients + i) = at(weights + i) * (at(gradients + i) - mean);
}

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
    for (int j = 0; j < 4; j++) out[j].add(weights[i + j], from + places[i + j]);
  return (out[0] + out[1]) + (out[2] + out[3]);
}

template <int V>
void forward_row(const Map& map, int row, View q, View k, View v, View out, float scale, const float* table) {
  Keys seen(map, row, k.position, v.position, table);
  alignas(64) float weights[MOST_KEYS];
  for (int x = 0; x < map.length; x++) {
    const int64_t position = int64_t(row) * map.length + x;
    const Channels<V> query = Channels<V>(q.data + position * q.position) * scale;
    dots(weights, query, k.data + map.start[x] * k.position, seen.keys, seen.count);
    const float share = seen.weigh(weights, map.entry[x]);
    const auto sum = weighted<V>(weights, v.data + map.start[x] * v.position, seen.values, seen.count);
    (sum * share).store_to(out.data + position * out.position);
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
  for (int x = 0; x < map.length; x++) {
    const int64_t position = int64_t(row) * map.length + x;
    float *weights = all_weights + position * seen.padded, *scores = all_scores + position * seen.padded;
    const float *keys = k.data + map.start[x] * k.position, *values = v.data + map.start[x] * v.position;
    dots(weights, Channels<V>(q.data + position * q.position) * scale, keys, seen.keys, seen.count);
    dots(scores, Channels<V>(to.out.data + position * to.out.position), values, seen.values, seen.count);
    const float share = seen.weigh(weights, map.entry[x]);
    for (int i = 0; i < seen.padded; i += LANES) at(weights + i) *= share;
    softmax_gradient(scores, weights, seen.padded);
    (weighted<V>(scores, keys, seen.keys, seen.count) * scale).store_to(to.q.data + position * to.q.position);
    if (!to.table) continue;
    for (int i = 0; i < seen.padded; i += LANES) at(sums + i) += at(scores + i);
    if (x + 1 < map.length && map.entry[x + 1] == map.entry[x]) continue;
    seen.add_to(to.table, sums, map.entry[x]);
    std::fill(sums, sums + seen.padded, 0.0f);
  }
}

template <int V>
void keys_backward(const Map& map, int row, View q, const Gradients& to, float scale, const float* weights,
                   const float* scores) {
  const int padded = whole_vectors(map.lines * map.run), end = map.row_seen[row + 1];
  for (int x = 0; x < map.length; x++) {
    Channels<V> of_key[2], of_value[2];
    auto add = [&](int which, int line) __attribute__((always_inline)) {
      const int64_t first = int64_t(map.seen_by_row[2 * line]) * map.length;
      const int place = map.seen_by_row[2 * line + 1] * map.run;
      for (int i = 0, from = map.first[x]; i < map.times[x]; i++, from += map.step) {
        const int64_t position = first + from;
        const int64_t score = position * padded + place + map.slot[x] - map.start_slot[from];
        of_key[which].add(scores[score], q.data + position * q.position);
        of_value[which].add(weights[score], to.out.data + position * to.out.position);
      }
    };
    for (int line = map.row_seen[row]; line < end; line++) add(line % 2, line);
    const int64_t position = int64_t(row) * map.length + x;
    ((of_key[0] + of_key[1]) * scale).store_to(to.k.data + position * to.k.position);
    (of_value[0] + of_value[1]).store_to(to.v.data + position * to.v.position);
  }
}

// A map whose queries all see all of it: its keys turned, one channel after the other, serve all queries.
template <int V>
struct Turned {
  alignas(64) float data[V * LANES * MOST_WHOLE];
  int padded;

  INLINE Turned(const View& x, int count) : padded(whole_vectors(count)) {
    for (int first = 0; first < padded; first += LANES)
      for (int channel = 0; channel < V * LANES; channel += LANES) {
        Vec block[LANES];
        for (int i = 0; i < LANES; i++)
          block[i] = first + i < count ? load(x.data + (first + i) * x.position + channel) : Vec{};
        turn(block);
        for (int i = 0; i < LANES; i++) at(data + (channel + i) * padded + first) = block[i];
      }
  }

  // Products of N vectors, which lie `step` apart, with all: N rows of `padded` numbers.
  template <int N>
  INLINE void dots(float* out, const float* from, int64_t step, float scale) const {
    int i = 0;
    for (; i + 2 * LANES <= padded; i += 2 * LANES) tile<N, 2>(out + i, from, step, scale, i);
    for (; i < padded; i += LANES) tile<N, 1>(out + i, from, step, scale, i);
  }

  template <int N, int M>
  INLINE void tile(float* out, const float* from, int64_t step, float scale, int place) const {
    Vec sum[N][M] = {};
    for (int channel = 0; channel < V * LANES; channel++)
      for (int i = 0; i < N; i++)
        for (int j = 0; j < M; j++)
          sum[i][j] += from[i * step + channel] * at(data + channel * padded + place + j * LANES);
    for (int i = 0; i < N; i++)
      for (int j = 0; j < M; j++) at(out + i * padded + j * LANES) = sum[i][j] * scale;
  }
};

// N weighted sums of all vectors of a map; weights of one sum lie `along` apart, those of one vector `across`.
template <int V, int N>
INLINE void weighted(Channels<V>* out, const float* weights, int across, int along, const View& x, int count) {
  for (int i = 0; i < count; i++) {
    const Channels<V> vector(x.data + i * x.position);
    for (int j = 0; j < N; j++) out[j].add(weights[j * across + i * along], vector);
  }
}

// Calls `run` for groups of TOGETHER, and for single ones behind.
template <typename Run>
INLINE void by_groups(int count, Run run) {
  int i = 0;
  for (; i + TOGETHER <= count; i += TOGETHER) run(i, std::integral_constant<int, TOGETHER>());
  for (; i < count; i++) run(i, std::integral_constant<int, 1>());
}

template <int V>
void whole_forward(const Map& map, View q, View k, View v, View out, float scale, const float* table) {
  const int count = map.length;
  const Turned<V> keys(k, count);
  Keys seen(map, 0, 0, 0, table);
  by_groups(count, [&](int x, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    alignas(64) float weights[N * MOST_WHOLE];
    float shares[N];
    Channels<V> sum[N];
    keys.template dots<N>(weights, q.data + x * q.position, q.position, scale);
    for (int i = 0; i < N; i++) shares[i] = seen.weigh(weights + i * seen.padded, map.entry[x + i]);
    weighted<V, N>(sum, weights, seen.padded, 1, v, count);
    for (int i = 0; i < N; i++) (sum[i] * shares[i]).store_to(out.data + (x + i) * out.position);
  });
}

template <int V>
void whole_backward(const Map& map, View q, View k, View v, const Gradients& to, float scale, const float* table,
                    float* all_weights, float* all_scores) {
  const int count = map.length;
  const Turned<V> keys(k, count), values(v, count);
  Keys seen(map, 0, 0, 0, table);
  const int padded = seen.padded;
  if (to.table) std::fill(to.table, to.table + map.entries + BESIDE, 0.0f);
  by_groups(count, [&](int x, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    float *weights = all_weights + x * padded, *scores = all_scores + x * padded;
    Channels<V> sum[N];
    keys.template dots<N>(weights, q.data + x * q.position, q.position, scale);
    values.template dots<N>(scores, to.out.data + x * to.out.position, to.out.position, 1.0f);
    for (int i = 0; i < N; i++) {
      float *own = weights + i * padded, *own_scores = scores + i * padded;
      const float share = seen.weigh(own, map.entry[x + i]);
      for (int j = 0; j < padded; j += LANES) at(own + j) *= share;
      softmax_gradient(own_scores, own, padded);
      if (to.table) seen.add_to(to.table, own_scores, map.entry[x + i]);
    }
    weighted<V, N>(sum, scores, padded, 1, k, count);
    for (int i = 0; i < N; i++) (sum[i] * scale).store_to(to.q.data + (x + i) * to.q.position);
  });
  by_groups(count, [&](int x, auto group) __attribute__((always_inline)) {
    constexpr int N = decltype(group)::value;
    Channels<V> of_key[N], of_value[N];
    weighted<V, N>(of_key, all_scores + x, 1, padded, q, count);
    weighted<V, N>(of_value, all_weights + x, 1, padded, to.out, count);
    for (int i = 0; i < N; i++) {
      (of_key[i] * scale).store_to(to.k.data + (x + i) * to.k.position);
      of_value[i].store_to(to.v.data + (x + i) * to.v.position);
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
    const int row = task % map.rows, unit = task / map.rows, head = unit % call.heads, image = unit / call.heads;
    const View q = of(call.query, image, head), k = of(call.key, image, head), v = of(call.value, image, head);
    const View out = of(call.out, image, head);
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
    const int row = task % map.rows, place = task / map.rows, unit = first + place;
    const int head = unit % call.heads, image = unit / call.heads;
    const View q = of(call.query, image, head), k = of(call.key, image, head), v = of(call.value, image, head);
    const Gradients to = {
        of(call.out, image, head), of(call.grad_query, image, head), of(call.grad_key, image, head),
        of(call.grad_value, image, head),
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

template <typename Run>
int by_channels(int channels, Run run) {
  switch (channels) {
    case 16:
      return run(std::integral_constant<int, 16 / LANES>()), 1;
    case 32:
      return run(std::integral_constant<int, 32 / LANES>()), 1;
    case 48:
      return run(std::integral_constant<int, 48 / LANES>()), 1;
    case 64:
      return run(std::integral_constant<int, 64 / LANES>()), 1;
    default:
      return 0;
  }
}

}  // namespace

extern "C" int interface() { return 1; }  // as in ops/_native.py: to be raised when Map, View or Call change

// Return 0, and do nothing, for a number of channels they are not made for.
extern "C" int neighborhood_forward(const Call* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { forward<decltype(parts)::value>(*call, scale); });
}

extern "C" int neighborhood_backward(const Call* call, int channels, float scale) {
  return by_channels(channels, [&](auto parts) { backward<decltype(parts)::value>(*call, scale); });
}

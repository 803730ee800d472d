// The bias of agents and positions, the sum of a small plane, of rows and of columns, each resized to the map, linearly
// and corners not aligned, as torch resizes; and the gradients of the three.
//
// Letters: N heads, A agents, P prefix tokens, H W height and width of the map, S side of the plane.

#include <vector>

#include "ops/_vectors.h"

namespace {

constexpr int S = 7;

// Where along an axis the two numbers lie that one of the resized axis is between, and the share of the second.
struct Places {
  std::vector<int64_t> low, high;
  std::vector<float> share;

  Places(int64_t from, int64_t to) : low(to), high(to), share(to) {
    const float scale = float(from) / float(to);
    for (int64_t i = 0; i < to; i++) {
      const float place = std::max(scale * (i + 0.5f) - 0.5f, 0.0f);
      low[i] = std::min(int64_t(place), from - 1);
      high[i] = std::min(low[i] + 1, from - 1);
      share[i] = from == to ? 0.0f : std::min(std::max(place - low[i], 0.0f), 1.0f);
    }
  }
};

// (N, A, numbers), of any strides.
struct Table {
  float* data;
  int64_t head, agent, number;

  INLINE float& at(int64_t n, int64_t a, int64_t i) const { return data[n * head + a * agent + i * number]; }
  INLINE float between(int64_t n, int64_t a, const Places& places, int64_t i) const {
    const float share = places.share[i];
    return (1.0f - share) * at(n, a, places.low[i]) + share * at(n, a, places.high[i]);
  }
};

INLINE void add_between(float* to, const Places& places, int64_t i, float gradient) {
  to[places.low[i]] += (1.0f - places.share[i]) * gradient;
  to[places.high[i]] += places.share[i] * gradient;
}

}  // namespace

// As agent_bias_native.py fills it.
struct BiasCall {
  Table plane, rows, columns, prefix;  // or their gradients
  float* bias;                         // (N, A, P + H * W), or its gradient
  int64_t heads, agents, tokens, height, width, rows_length, columns_length, threads;
};

namespace {

class Bias {
  const BiasCall& call;
  const Places high, rows, columns;
  const int64_t width;      // in whole vectors
  std::vector<float> wide;  // (S, width): the share that each number of a line of the plane has in those of the map

 public:
  explicit Bias(const BiasCall& call)
      : call(call),
        high(S, call.height),
        rows(call.rows_length, call.height),
        columns(call.columns_length, call.width),
        width(whole_vectors(call.width)),
        wide(S * width) {
    const Places places(S, call.width);
    for (int64_t x = 0; x < call.width; x++) {
      wide[places.low[x] * width + x] += 1.0f - places.share[x];
      wide[places.high[x] * width + x] += places.share[x];
    }
  }

  // What `forward` and `backward` work in: the lines of the plane as wide as the map, its columns, a line of the map;
  // and gradients of a plane, rows and columns.
  int64_t lines_size() const { return (S + 2) * width; }
  int64_t found_size() const { return S * S + call.rows_length + call.columns_length; }

  void forward(int64_t n, int64_t a, float* lines, float*) const {
    float *out = positions(n, a), *end = positions(n, a + 1);
    float *of_columns = lines + S * width, *last = of_columns + width;
    for (int64_t i = 0; i < call.tokens; i++) *out++ = call.prefix.at(n, a, i);
    for (int64_t x = 0; x < call.width; x++) of_columns[x] = call.columns.between(n, a, columns, x);
    const float* plane = &call.plane.at(n, a, 0);
    for (int64_t x = 0; x < width; x += LANES) {
      Vec share[S];
      for (int i = 0; i < S; i++) share[i] = load(&wide[i * width + x]);
      for (int line = 0; line < S; line++) {
        Vec sum = share[0] * plane[line * S];
        for (int i = 1; i < S; i++) sum += share[i] * plane[line * S + i];
        store(lines + line * width + x, sum);
      }
    }
    for (int64_t y = 0; y < call.height; y++, out += call.width) {
      const float *above = lines + high.low[y] * width, *below = lines + high.high[y] * width;
      const float share = high.share[y], row = call.rows.between(n, a, rows, y);
      for (int64_t x = 0; x < width; x += LANES) {
        const Vec sum = (1.0f - share) * load(above + x) + share * load(below + x) + (row + load(of_columns + x));
        if (out + x + LANES <= end) {
          store(out + x, sum);  // what is beyond the line is that of the next one, and written after it
        } else {
          store(last, sum);
          std::copy(last, last + call.width - x, out + x);
        }
      }
    }
  }

  void backward(int64_t n, int64_t a, float* lines, float* found) const {
    const float *gradient = positions(n, a), *end = positions(n, a + 1);
    float *of_columns = lines + S * width, *last = of_columns + width;
    float *of_rows = found + S * S, *to_columns = of_rows + call.rows_length;
    std::fill(lines, lines + lines_size(), 0.0f);
    std::fill(found, found + found_size(), 0.0f);
    for (int64_t i = 0; i < call.tokens; i++) call.prefix.at(n, a, i) = *gradient++;
    Ints lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    auto part = [&](int64_t y, int64_t x) __attribute__((always_inline)) {
      const float* from = gradient + y * call.width + x;
      if (from + LANES > end) std::copy(from, gradient + (y + 1) * call.width, last);
      const Vec whole = load(from + LANES > end ? last : from);
      return x + LANES > call.width ? (lane < int(call.width - x) ? whole : Vec{}) : whole;
    };
    for (int64_t x = 0; x < width; x += LANES) {
      Vec column{}, above{}, below{};  // of this line of the plane and the next
      int64_t line = 0;
      auto next = [&]() {
        store(lines + line++ * width + x, above);
        above = below;
        below = Vec{};
      };
      for (int64_t y = 0; y < call.height; y++) {
        const Vec some = part(y, x);
        while (line < high.low[y]) next();
        column += some;
        above += (1.0f - high.share[y]) * some;
        (high.high[y] == line ? above : below) += high.share[y] * some;
      }
      while (line < S) next();
      store(of_columns + x, column);
    }
    for (int64_t y = 0; y < call.height; y += LANES) {
      const Vec of_some = sums([&](int64_t i) __attribute__((always_inline)) {
        Vec sum{};
        if (y + i < call.height)
          for (int64_t x = 0; x < width; x += LANES) sum += part(y + i, x);
        return sum;
      });
      for (int i = 0; i < LANES && y + i < call.height; i++) add_between(of_rows, rows, y + i, of_some[i]);
    }
    for (int64_t first = 0; first < S * S; first += LANES) {
      const Vec of_some = sums([&](int64_t i) __attribute__((always_inline)) {
        const int64_t line = (first + i) / S, number = (first + i) % S;
        Vec sum{};
        if (line < S)
          for (int64_t x = 0; x < width; x += LANES)
            sum += load(&wide[number * width + x]) * load(lines + line * width + x);
        return sum;
      });
      for (int i = 0; i < LANES && first + i < S * S; i++) found[first + i] = of_some[i];
    }
    for (int64_t x = 0; x < call.width; x++) add_between(to_columns, columns, x, of_columns[x]);
    for (int64_t i = 0; i < S * S; i++) call.plane.at(n, a, i) = found[i];
    for (int64_t i = 0; i < call.rows_length; i++) call.rows.at(n, a, i) = of_rows[i];
    for (int64_t i = 0; i < call.columns_length; i++) call.columns.at(n, a, i) = to_columns[i];
  }

 private:
  float* positions(int64_t n, int64_t a) const {
    return call.bias + (n * call.agents + a) * (call.tokens + call.height * call.width);
  }
};

template <typename Run>
int by_agents(const BiasCall& call, Run run) {
  const Bias bias(call);
#pragma omp parallel num_threads(call.threads)
  {
    std::vector<float> lines(bias.lines_size()), found(bias.found_size());
#pragma omp for schedule(static)
    for (int64_t i = 0; i < call.heads * call.agents; i++)
      run(bias, i / call.agents, i % call.agents, lines.data(), found.data());
  }
  return 1;
}

}  // namespace

extern "C" int agent_bias_forward(const BiasCall* call) {
  return by_agents(*call, [](const Bias& bias, auto... at) { bias.forward(at...); });
}

extern "C" int agent_bias_backward(const BiasCall* call) {
  return by_agents(*call, [](const Bias& bias, auto... at) { bias.backward(at...); });
}

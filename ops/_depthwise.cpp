// Depthwise convolutions of float32 maps whose channels lie side by side, and their gradients. The map keeps its size.
//
// Letters: K side of the kernels, C channels, B images, H W height and width.

#include <type_traits>

#include "ops/_vectors.h"

namespace {

constexpr int TOGETHER = 4;  // positions that share a tap of the kernel

}  // namespace

struct Plane {  // (B, H, W, C)
  float* data;
  int64_t image, row, position;

  INLINE float* at(int64_t which, int64_t y) const { return data + which * image + y * row; }
};

// As _depthwise_native.py fills it.
struct DepthwiseCall {
  const float *weight, *bias;      // (C, K, K); (C,) or null
  float *grad_weight, *grad_bias;  // null where they are not wanted
  float* space;                    // K * K * C, in the backward pass (threads + 1) * (K * K + 1) * C
  int64_t images, height, width, channels, threads, add;  // add: to what the result holds
  Plane x, out;                                           // in the backward pass `out` is its gradient
  Plane grad_x;
};

namespace {

// Weights one tap after the other, for the gradient of the input from the last to the first.
template <int K>
void turn_weights(const DepthwiseCall& call, bool reversed) {
  for (int64_t c = 0; c < call.channels; c++)
    for (int i = 0; i < K * K; i++)
      call.space[(reversed ? K * K - 1 - i : i) * call.channels + c] = call.weight[c * K * K + i];
}

// TOGETHER + K - 1 positions of a row from `first` on, zeros outside of the map.
template <int K, bool INSIDE>
INLINE void take(Vec* out, const float* row, int64_t step, int64_t first, int64_t width) {
  for (int i = 0; i < TOGETHER + K - 1; i++)
    out[i] = INSIDE || (first + i >= 0 && first + i < width) ? load(row + (first + i) * step) : Vec{};
}

template <int K>
INLINE bool is_inside(int64_t x, int64_t width) {
  return x >= K / 2 && x + TOGETHER + K / 2 <= width;
}

template <int K>
void convolve_row(const DepthwiseCall& call, const Plane& from, const Plane& to, int64_t image, int64_t y,
                  const float* bias) {
  for (int64_t c = 0; c < call.channels; c += LANES)
    for (int64_t x = 0; x < call.width; x += TOGETHER) {
      float* out = to.at(image, y) + x * to.position + c;
      const int count = std::min<int64_t>(TOGETHER, call.width - x);
      Vec sum[TOGETHER];
      for (int i = 0; i < TOGETHER; i++) {
        sum[i] = bias ? load(bias + c) : Vec{};
        if (call.add && i < count) sum[i] += load(out + i * to.position);
      }
      auto add_rows = [&](auto inside) __attribute__((always_inline)) {
        for (int dy = 0; dy < K; dy++) {
          if (y + dy < K / 2 || y + dy - K / 2 >= call.height) continue;
          Vec some[TOGETHER + K - 1];
          const float* row = from.at(image, y + dy - K / 2) + c;
          take<K, decltype(inside)::value>(some, row, from.position, x - K / 2, call.width);
          for (int dx = 0; dx < K; dx++) {
            const Vec tap = load(call.space + (dy * K + dx) * call.channels + c);
            for (int i = 0; i < TOGETHER; i++) sum[i] += some[i + dx] * tap;
          }
        }
      };
      if (is_inside<K>(x, call.width))
        add_rows(std::true_type());
      else
        add_rows(std::false_type());
      for (int i = 0; i < count; i++) store(out + i * to.position, sum[i]);
    }
}

// Adds what a row of the output's gradient gives to those of the taps, (K * K, C), and of the bias behind them.
template <int K>
void add_taps(const DepthwiseCall& call, int64_t image, int64_t y, float* taps) {
  constexpr int WIDE = K == 3 ? 4 : 2;  // vectors of channels at a time: enough sums that none waits for another
  auto add = [&](int64_t c, auto wide) __attribute__((always_inline)) {
    constexpr int N = decltype(wide)::value;
    Vec bias[N] = {};
    for (int dy = 0; dy < K; dy++) {
      if (y + dy < K / 2 || y + dy - K / 2 >= call.height) continue;
      Vec sum[N][K] = {};
      for (int64_t x = 0; x < call.width; x += TOGETHER)
        for (int j = 0; j < N; j++) {
          const float* grad = call.out.at(image, y) + c + j * LANES;
          const float* row = call.x.at(image, y + dy - K / 2) + c + j * LANES;
          auto add_some = [&](auto inside) __attribute__((always_inline)) {
            Vec some[TOGETHER + K - 1], given[TOGETHER];
            take<K, decltype(inside)::value>(some, row, call.x.position, x - K / 2, call.width);
            take<1, decltype(inside)::value>(given, grad, call.out.position, x, call.width);
            for (int i = 0; i < TOGETHER; i++) {
              for (int dx = 0; dx < K; dx++) sum[j][dx] += some[i + dx] * given[i];
              if (dy == K / 2) bias[j] += given[i];
            }
          };
          if (is_inside<K>(x, call.width))
            add_some(std::true_type());
          else
            add_some(std::false_type());
        }
      for (int j = 0; j < N; j++)
        for (int dx = 0; dx < K; dx++) {
          float* tap = taps + (dy * K + dx) * call.channels + c + j * LANES;
          store(tap, load(tap) + sum[j][dx]);
        }
    }
    for (int j = 0; j < N; j++) {
      float* place = taps + K * K * call.channels + c + j * LANES;
      store(place, load(place) + bias[j]);
    }
  };
  int64_t c = 0;
  for (; c + WIDE * LANES <= call.channels; c += WIDE * LANES) add(c, std::integral_constant<int, WIDE>());
  for (; c < call.channels; c += LANES) add(c, std::integral_constant<int, 1>());
}

template <int K>
void forward(const DepthwiseCall& call) {
  turn_weights<K>(call, false);
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t row = 0; row < call.images * call.height; row++)
    convolve_row<K>(call, call.x, call.out, row / call.height, row % call.height, call.bias);
}

template <int K>
void backward(const DepthwiseCall& call) {
  const int64_t size = (K * K + 1) * call.channels, rows = call.images * call.height;
  float* taps = call.space + size;
  turn_weights<K>(call, true);
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t thread = 0; thread < call.threads; thread++) {
    if (call.grad_weight) std::fill(taps + thread * size, taps + (thread + 1) * size, 0.0f);
    for (int64_t row = thread * rows / call.threads; row < (thread + 1) * rows / call.threads; row++) {
      const int64_t image = row / call.height, y = row % call.height;
      if (call.grad_x.data) convolve_row<K>(call, call.out, call.grad_x, image, y, nullptr);
      if (call.grad_weight) add_taps<K>(call, image, y, taps + thread * size);
    }
  }
  if (!call.grad_weight) return;
  for (int64_t thread = 1; thread < call.threads; thread++)
    for (int64_t i = 0; i < size; i++) taps[i] += taps[thread * size + i];
  for (int64_t c = 0; c < call.channels; c++) {
    for (int i = 0; i < K * K; i++) call.grad_weight[c * K * K + i] = taps[i * call.channels + c];
    if (call.grad_bias) call.grad_bias[c] = taps[K * K * call.channels + c];
  }
}

template <typename Run>
int by_size(int size, Run run) {
  switch (size) {
    case 3:
      return run(std::integral_constant<int, 3>()), 1;
    case 5:
      return run(std::integral_constant<int, 5>()), 1;
    case 7:
      return run(std::integral_constant<int, 7>()), 1;
    default:
      return 0;
  }
}

}  // namespace

// Return 0, and do nothing, for a side of kernels they are not made for.
extern "C" int depthwise_forward(const DepthwiseCall* call, int size) {
  return by_size(size, [&](auto side) { forward<decltype(side)::value>(*call); });
}

extern "C" int depthwise_backward(const DepthwiseCall* call, int size) {
  return by_size(size, [&](auto side) { backward<decltype(side)::value>(*call); });
}

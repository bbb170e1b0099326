// The rules of emo_hf/updates.py for the tensors of a CPU: all tensors of a group in one call, every entry of a tensor
// read and written once (the factored step reads the gradient twice). emo_hf/kernels/native.py builds and calls it.
//
// Numbers are computed in float (double for double) and rounded when they are stored. Results do not depend on the
// number of threads: entries are independent, and sums are of blocks that depend on the shape only. What is measured of
// a block is summed in float, and blocks in double.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

namespace {

constexpr int64_t GRAIN = 1 << 15;               // elements worth a thread
constexpr int64_t BLOCK = 1 << 13;               // elements whose sums are in float
constexpr int64_t MOST_SUMS = int64_t{1} << 19;  // doubles for the sums of columns: 4 MB

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class W>
struct Hyper { W step, keep, beta1, rest1, beta2, rest2, eps, scale, eps_before; };

// Over all entries: g u_old, with the direction of the step before; |g|; g u.
struct Sums {
  double following = 0, magnitude = 0, descent = 0;
  void operator+=(const Sums& x) { following += x.following, magnitude += x.magnitude, descent += x.descent; }
};

struct Item { at::Tensor param, grad, first, second, lost; };  // what a rule has no use for is undefined

template <class T>
inline Wide<T> load(const T& x) { return x; }

template <class T>
inline void store(T& x, Wide<T> value) { x = value; }

// bfloat16 by its bits and without a branch, which compilers can turn into vectors; rounds to even, keeps nan.
inline float load(const at::BFloat16& x) { return __builtin_bit_cast(float, uint32_t(x.x) << 16); }

inline void store(at::BFloat16& x, float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  x.x = uint16_t(value != value ? 0x7fc0 : rounded);
}

template <class W>
inline W sign(W x) { return W(x > 0) - W(x < 0); }  // 0 for nan, as in torch

enum Rule { SIGN, MOMENTUM_SIGN, LION, ADAM };

template <class W>
inline W quotient(W m, W v, W eps) { return m / (std::sqrt(v) + eps); }

// Returns the direction u and moves the averages m and v.
template <Rule RULE, class W>
inline W direction(W g, W& m, W& v, const Hyper<W>& h) {
  if constexpr (RULE == SIGN) return sign(g);
  const W blend = g * h.rest1 + m * h.beta1;
  if constexpr (RULE == LION) {
    m = m * h.beta2 + g * h.rest2;
    return sign(blend);
  }
  m = blend;
  if constexpr (RULE == MOMENTUM_SIGN) return sign(m);
  v = v * h.beta2 + h.rest2 * g * g;
  return quotient(m, v, h.eps);
}

// p = (1 - decay) scale p - step u, for n entries; if COMPENSATED, c holds what rounding cut off of p, and p is p + c
template <Rule RULE, bool COMPENSATED, bool MEASURED, class T>
Sums advance(T* __restrict p, const T* __restrict g, T* __restrict m, T* __restrict v, T* __restrict c, int64_t n,
             const Hyper<Wide<T>>& numbers) {
  using W = Wide<T>;
  const Hyper<W> h = numbers;
  W following = 0, magnitude = 0, descent = 0;
#pragma omp simd reduction(+ : following, magnitude, descent)
  for (int64_t i = 0; i < n; ++i) {
    const W grad = load(g[i]);
    W first = 0, second = 0;
    if constexpr (RULE != SIGN) first = load(m[i]);
    if constexpr (RULE == ADAM) second = load(v[i]);
    if constexpr (MEASURED) following += grad * quotient(first, second, h.eps_before);
    const W u = direction<RULE>(grad, first, second, h);
    if constexpr (MEASURED) magnitude += std::abs(grad), descent += grad * u;
    W w = load(p[i]);
    if constexpr (COMPENSATED) w += load(c[i]);
    w = w * h.scale * h.keep - h.step * u;
    store(p[i], w);
    if constexpr (COMPENSATED) store(c[i], w - load(p[i]));
    if constexpr (RULE != SIGN) store(m[i], first);
    if constexpr (RULE == ADAM) store(v[i], second);
  }
  return {following, magnitude, descent};
}

template <class T>
T* data(const at::Tensor& tensor, int64_t at = 0) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) + at : nullptr;
}

// Cuts the line of all entries of all tensors into equal shares, one for every thread. A block belongs to the thread in
// whose share it begins.
template <Rule RULE, bool MEASURED, class T>
Sums elementwise(const std::vector<Item>& items, const Hyper<Wide<T>>& h) {
  std::vector<int64_t> starts{0}, blocks{0};  // of every tensor on the line, and its first block
  for (const auto& item : items) {
    starts.push_back(starts.back() + item.param.numel());
    blocks.push_back(blocks.back() + (item.param.numel() + BLOCK - 1) / BLOCK);
  }
  std::vector<Sums> sums(MEASURED ? blocks.back() : 0);
  at::parallel_for(0, starts.back(), GRAIN, [&](int64_t begin, int64_t end) {
    size_t i = std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin() - 1;
    for (int64_t block = (begin - starts[i] + BLOCK - 1) / BLOCK; i < items.size(); ++i, block = 0) {
      const auto& [param, grad, first, second, lost] = items[i];
      const auto run = lost.defined() ? advance<RULE, true, MEASURED, T> : advance<RULE, false, MEASURED, T>;
      for (int64_t at = block * BLOCK; at < param.numel(); at += BLOCK, ++block) {
        if (starts[i] + at >= end) return;
        const auto found = run(data<T>(param, at), data<T>(grad, at), data<T>(first, at), data<T>(second, at),
                               data<T>(lost, at), std::min(BLOCK, param.numel() - at), h);
        if constexpr (MEASURED) sums[blocks[i] + block] = found;
      }
    }
  });
  Sums total;
  for (const auto& each : sums) total += each;
  return total;
}

// p = (1 - decay) scale p - step u,  u = g / (sqrt(r c) + eps);  r, c average the root mean squares of rows, columns
template <class T>
void factored(const Item& item, const Hyper<Wide<T>>& h) {
  using W = Wide<T>;
  T *p = data<T>(item.param), *g = data<T>(item.grad), *r = data<T>(item.first), *c = data<T>(item.second);
  const int64_t rows = item.param.size(0), cols = item.param.numel() / rows;
  const int64_t most = std::min({rows, MOST_SUMS / cols, int64_t{16}, item.param.numel() / GRAIN + 1});
  const int64_t height = (rows + most - 1) / most, blocks = (rows + height - 1) / height;
  std::vector<double> sums(blocks * cols, 0.0);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * height; i < std::min(end * height, rows); ++i) {
      const T* __restrict x = g + i * cols;
      double* __restrict sum = sums.data() + i / height * cols;
      double row = 0;
#pragma omp simd reduction(+ : row)
      for (int64_t j = 0; j < cols; ++j) {
        const double square = load(x[j]) * load(x[j]);
        sum[j] += square;
        row += square;
      }
      store(r[i], load(r[i]) * h.beta1 + std::sqrt(W(row / cols) + h.eps) * h.rest1);
    }
  });
  std::vector<W> column(cols);
  for (int64_t j = 0; j < cols; ++j) {
    for (int64_t block = 1; block < blocks; ++block) sums[j] += sums[block * cols + j];
    column[j] = load(c[j]) * h.beta1 + std::sqrt(W(sums[j] / rows) + h.eps) * h.rest1;
    store(c[j], column[j]);
  }
  at::parallel_for(0, rows, GRAIN / cols + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const W row = load(r[i]), *__restrict factor = column.data();
      T *__restrict w = p + i * cols, *__restrict x = g + i * cols;
#pragma omp simd
      for (int64_t j = 0; j < cols; ++j) {
        const W u = load(x[j]) / (std::sqrt(row * factor[j]) + h.eps);
        store(w[j], load(w[j]) * h.scale * h.keep - h.step * u);
      }
    }
  });
}

// -- from lists of tensors to the rules ------------------------------------------------------------------------------

bool plain(const at::Tensor& x) {
  const auto type = x.scalar_type();
  return x.device().is_cpu() && x.layout() == at::kStrided && x.is_contiguous() && !x.is_neg() &&
         (type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf);
}

bool fits(const at::Tensor& x, const at::Tensor& param, int64_t numel) {
  return !x.defined() || (plain(x) && x.scalar_type() == param.scalar_type() && x.numel() == numel);
}

bool takes(const Item& item, bool factors) {
  const auto& p = item.param;
  const int64_t n = p.numel(), rows = factors && p.dim() ? p.size(0) : n, cols = factors && rows ? n / rows : n;
  return plain(p) && fits(item.grad, p, n) && fits(item.first, p, rows) && fits(item.second, p, cols) &&
         fits(item.lost, p, n) && (!factors || (n > 0 && p.dim() > 1 && cols <= MOST_SUMS && !item.lost.defined()));
}

template <class T>
Sums apply(const std::string& rule, const std::vector<Item>& items, const Hyper<double>& d) {
  using W = Wide<T>;
  const Hyper<W> h{W(d.step),  W(d.keep),  W(d.beta1), W(d.rest1),     W(d.beta2),
                   W(d.rest2), W(d.eps),   W(d.scale), W(d.eps_before)};
  if (rule == "sign") return elementwise<SIGN, false, T>(items, h);
  if (rule == "momentum_sign") return elementwise<MOMENTUM_SIGN, false, T>(items, h);
  if (rule == "lion") return elementwise<LION, false, T>(items, h);
  if (rule == "adam") return elementwise<ADAM, false, T>(items, h);
  if (rule == "measured_adam") return elementwise<ADAM, true, T>(items, h);
  TORCH_CHECK(rule == "factored", "emo_hf: no rule is called ", rule);
  const auto small = [](const Item& item) { return item.param.numel() <= GRAIN; };  // worth one thread
  for (const auto& item : items) if (!small(item)) factored<T>(item, h);
  at::parallel_for(0, items.size(), 4, [&](int64_t begin, int64_t end) {
    for (; begin < end; ++begin) if (small(items[begin])) factored<T>(items[begin], h);
  });
  return {};
}

// Calls f with a value of the C++ type of a dtype that `plain` lets through.
template <class F>
void with_type(at::ScalarType type, F f) {
  if (type == at::kDouble) return f(double());
  if (type == at::kFloat) return f(float());
  return type == at::kBFloat16 ? f(at::BFloat16()) : f(at::Half());
}

// Applies `rule` in place. Returns the indices of the tensors it did not take: not on the CPU, strided, or of another
// dtype than their gradient or state; and the sums over those it took, which only "measured_adam" makes.
std::tuple<std::vector<int64_t>, std::vector<double>> step(
    const std::string& rule, at::TensorList params, at::TensorList grads, at::TensorList first, at::TensorList second,
    at::TensorList lost, double step, double decay, double beta1, double beta2, double eps, double scale,
    double eps_before) {
  const Hyper<double> h{step, 1 - decay, beta1, 1 - beta1, beta2, 1 - beta2, eps, scale, eps_before};
  const auto at = [](at::TensorList list, size_t i) { return list.empty() ? at::Tensor() : list[i]; };
  std::map<at::ScalarType, std::vector<Item>> items;
  std::vector<int64_t> left;
  for (size_t i = 0; i < params.size(); ++i) {
    Item item{params[i], grads[i], at(first, i), at(second, i), at(lost, i)};
    if (!takes(item, rule == "factored")) { left.push_back(i); continue; }
    for (const auto& x : {item.param, item.first, item.second, item.lost}) {
      if (x.defined() && !x.is_inference()) x.unsafeGetTensorImpl()->bump_version();  // as autograd's checks expect
    }
    items[item.param.scalar_type()].push_back(std::move(item));
  }
  Sums total;
  for (const auto& [type, list] : items) {
    with_type(type, [&, &list = list](auto zero) { total += apply<decltype(zero)>(rule, list, h); });
  }
  return {left, {total.following, total.magnitude, total.descent}};
}

template <class T>
double sum_of_abs(const T* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += std::abs(load(x[i]));
  return sum;
}

// Returns the sum of |x| over all entries, or nothing if a tensor is not a plain one of the CPU.
std::optional<double> l1_norm(at::TensorList tensors) {
  double total = 0;
  for (const auto& x : tensors) {
    if (!plain(x)) return std::nullopt;
    std::vector<double> sums((x.numel() + GRAIN - 1) / GRAIN);
    with_type(x.scalar_type(), [&](auto zero) {
      at::parallel_for(0, sums.size(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin * GRAIN; begin < end; ++begin, at += GRAIN)
          sums[begin] = sum_of_abs(data<decltype(zero)>(x, at), std::min(GRAIN, x.numel() - at));
      });
    });
    for (const double sum : sums) total += sum;
  }
  return total;
}

}  // namespace

TORCH_LIBRARY(emo_hf, library) {
  library.def("step(str rule, Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] first, Tensor(c!)[] second, "
              "Tensor(d!)[] lost, float step, float decay, float beta1, float beta2, float eps, float scale, "
              "float eps_before) -> (int[], float[])",
              &step);
  library.def("l1_norm(Tensor[] tensors) -> float?", &l1_norm);
}

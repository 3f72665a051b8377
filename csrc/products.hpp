// Matrix products: of registers in tiles, of plain numbers by Eigen.
//
// Every matrix is row-major with a leading dimension. A register holds neighbouring runs or, for
// one run, neighbouring samples (`Rows`). One operand may be plain double while the other is a
// Lane: data that all runs share, or weights that all samples share. Sums run over the inner index
// in a fixed order, so that results depend on the shapes alone, to the bit.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lanes.hpp"
#include "samples.hpp"

namespace pylyap {

template <class T>
struct Matrix {
  T* data;
  Index rows, cols, stride;  // element (i, j) is data[i * stride + j]

  Matrix(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  Matrix(T* data_, Index rows_, Index cols_) : Matrix(data_, rows_, cols_, cols_) {}
  template <class U>
    requires std::is_same_v<T, const U>
  Matrix(const Matrix<U>& other) : Matrix(other.data, other.rows, other.cols, other.stride) {}
};

// Values of one run along samples, in registers of W: sample s of row r is number s % W of
// data[r * stride + s / W]. Numbers past the last sample are undefined.
template <class T>
struct Rows {
  T* data;
  Index rows, cols, stride;  // cols in samples, stride in registers

  Rows(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  template <class U>
    requires std::is_same_v<T, const U>
  Rows(const Rows<U>& other) : Rows(other.data, other.rows, other.cols, other.stride) {}

  Index registers() const { return (cols + kPerRegister<Number<T>> - 1) / kPerRegister<Number<T>>; }
  operator Matrix<T>() const { return {data, rows, registers(), stride}; }
};

// Arrays over samples: of one run with S = double or float, of W runs with S = Lane. T is the
// register, const or not.
template <class S, class T>
using Array = std::conditional_t<kRuns<S> == 1, Rows<T>, Matrix<T>>;

template <class S>
Array<S, Register<S>> array(S* data, Index rows, Index cols, Index stride) {
  return {reinterpret_cast<Register<S>*>(data), rows, cols, stride / kPerRegister<S>};
}
template <class S>
Array<S, const Register<S>> array(const S* data, Index rows, Index cols, Index stride) {
  return {reinterpret_cast<const Register<S>*>(data), rows, cols, stride / kPerRegister<S>};
}
// Data: registers of samples for one run, numbers that W runs share otherwise.
template <class S>
auto shared_array(const Number<S>* data, Index rows, Index cols, Index stride) {
  if constexpr (kRuns<S> == 1) {
    return array<S>(data, rows, cols, stride);
  } else {
    return Matrix<const double>(data, rows, cols, stride);
  }
}

// Registers that hold a row over `count` samples: neighbouring samples of one run, or one sample of
// several runs each.
template <class S>
Index registers(Index count) {
  return (count + kPerRegister<S> - 1) / kPerRegister<S>;
}
// Register i of a row of data that all runs share.
template <class S>
Register<S> shared_register(const Number<S>* data, Index i) {
  if constexpr (kRuns<S> == 1) {
    return load<Register<S>>(data + i * kPerRegister<S>);
  } else {
    return broadcast<S>(data[i]);
  }
}
// Row r of an array whose rows are `stride` apart.
template <class S>
Register<S>* register_row(S* data, Index stride, Index r) {
  return reinterpret_cast<Register<S>*>(data + r * stride);
}
template <class S>
const Register<S>* register_row(const S* data, Index stride, Index r) {
  return reinterpret_cast<const Register<S>*>(data + r * stride);
}
template <class R>
void multiply_elements(const R* a, const R* b, R* out, Index count) {
  for (Index i = 0; i < count; ++i) out[i] = a[i] * b[i];
}

namespace detail {

// out(r, c) (+)= sum over p of x(r, p) * y(c, p) in registers S, operands addressed by strides (xr,
// xp) and (yc, yp); rows of out, registers or the numbers in them, are out_stride apart.
template <class S, Index R, Index C, class X, class Y, class O>
[[gnu::flatten]] inline void tile(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                                  Index count, O* out, Index out_stride, bool add) {
  S acc[R][C] = {};
  for (Index p = 0; p < count; ++p) {
    S a[R];
    unrolled<R>([&](Index r) {
      const S value = broadcast_shared<S>(x[r * xr + p * xp]);
      a[r] = C > 1 ? pinned(value) : value;
    });
    unrolled<C>([&](Index c) {
      const S value = broadcast_shared<S>(y[c * yc + p * yp]), b = R > 1 ? pinned(value) : value;
      unrolled<R>([&](Index r) { acc[r][c] = a[r] * b + acc[r][c]; });
    });
  }
  unrolled<R>([&](Index r) {
    unrolled<C>([&](Index c) {
      O* target = out + r * out_stride + c * kPerRegister<O>;
      S sum = acc[r][c];
      if (add) {
        S before;
        std::memcpy(&before, target, sizeof before);
        sum = before + sum;
      }
      std::memcpy(target, &sum, sizeof sum);
    });
  });
}

// Calls f<size>(begin) for pieces of at most `Most` that cover 0 ... count - 1 and whose sizes
// differ by at most 1. `Least` states that count >= Least, which excludes smaller pieces as well:
// f is compiled once for each size.
template <Index Most, Index Least = 1, class F>
inline void in_pieces(Index count, F&& f) {
  static_assert(2 * Least <= Most + 1);  // the sizes of two pieces begin at (Most + 1) / 2
  if (count <= 0) return;
  const Index pieces = (count + Most - 1) / Most, least = count / pieces;
  const Index small = pieces * (least + 1) - count;  // pieces of size `least`, which come first
  for (Index p = 0, begin = 0; p < pieces; ++p) {
    const Index size = p < small ? least : least + 1;
    [&]<Index... I>(std::integer_sequence<Index, I...>) {
      ((size == I + Least ? f.template operator()<I + Least>(begin) : void()), ...);
    }(std::make_integer_sequence<Index, Most - Least + 1>{});
    begin += size;
  }
}

// The largest tile: R x C accumulators and R + 1 operands fill the registers.
inline constexpr Index kTileRows = kRegisters >= 32 ? 6 : 3, kTileCols = 4;

// The order of the tiles, by the operand that stays in the cache while the other one streams: that
// of the columns of out, or that of its rows.
enum class Keep { columns, rows };

// `tile` for any number of rows, and of columns in registers.
template <Keep keep, class S, class X, class Y, class O>
[[gnu::noinline]] void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp,
                             Index count, Index rows, Index cols, O* out, Index out_stride,
                             bool add) {
  auto one = [&]<Index R, Index C>(Index r, Index c) {
    tile<S, R, C>(x + r * xr, xr, xp, y + c * yc, yc, yp, count,
                  out + r * out_stride + c * kPerRegister<O>, out_stride, add);
  };
  if constexpr (keep == Keep::columns) {
    in_pieces<kTileCols>(cols, [&]<Index C>(Index c) {
      in_pieces<kTileRows>(rows, [&]<Index R>(Index r) { one.template operator()<R, C>(r, c); });
    });
  } else {
    in_pieces<kTileRows>(rows, [&]<Index R>(Index r) {
      in_pieces<kTileCols>(cols, [&]<Index C>(Index c) { one.template operator()<R, C>(r, c); });
    });
  }
}
template <Keep keep, class S, class X, class Y>
void tiled(const X* x, Index xr, Index xp, const Y* y, Index yc, Index yp, Index count,
           Matrix<S> out, bool add) {
  tiled<keep, S>(x, xr, xp, y, yc, yp, count, out.rows, out.cols, out.data, out.stride, add);
}

// Used in several source files; compiled in instantiate/products.cpp.
extern template void tiled<Keep::columns, Lane, Lane, Lane, Lane>(const Lane*, Index, Index,
                                                                  const Lane*, Index, Index, Index,
                                                                  Index, Index, Lane*, Index, bool);

// Of each 2 H numbers of a and b: a <- the first H of both, b <- the last H of both.
template <Index H, class R>
[[gnu::always_inline]] inline void exchange(R& a, R& b) {
  constexpr Index W = kPerRegister<Number<R>>;
  [&]<Index... I>(std::integer_sequence<Index, I...>) __attribute__((always_inline)) {
#ifdef __clang__
    const R low = __builtin_shufflevector(a, b, (I & H ? W + I - H : I)...);
    b = __builtin_shufflevector(a, b, (I & H ? W + I : I + H)...);
#else
    using Places = decltype(R{} < R{});
    const Places first{(I & H ? W + I - H : I)...}, last{(I & H ? W + I : I + H)...};
    const R low = __builtin_shuffle(a, b, first);
    b = __builtin_shuffle(a, b, last);
#endif
    a = low;
  }(std::make_integer_sequence<Index, W>{});
}

// sums[i] <- the sum of the numbers of register i, by halves, for Count registers; `sums` has room
// for whole registers.
template <Index Count>
[[gnu::always_inline]] inline void reduce_all(const Lane* registers, double* sums) {
  constexpr Index W = kRuns<Lane>;
  unrolled<(Count + W - 1) / W>([&](auto group) {
    Lane r[W];
    unrolled<W>([&](auto l) {
      constexpr Index i = group * W + l;
      r[l] = i < Count ? registers[std::min(i, Count - 1)] : Lane{};
    });
    auto halves = [&]<Index H>(std::integral_constant<Index, H>) __attribute__((always_inline)) {
      unrolled<H>([&](auto l) {
        exchange<H>(r[l], r[l + H]);
        r[l] += r[l + H];
      });
    };
    if constexpr (W > 4) halves(std::integral_constant<Index, 4>{});
    if constexpr (W > 2) halves(std::integral_constant<Index, 2>{});
    halves(std::integral_constant<Index, 1>{});
    store(r[0], sums + group * W);
  });
}

// Two factors of a product, and maybe two more of the same shape whose product is added.
template <class X, class Y>
struct Pairs {
  const X* x;
  const Y* y;
  const X* x2 = nullptr;
  const Y* y2 = nullptr;

  Pairs shifted(Index by_x, Index by_y) const {
    return {x + by_x, y + by_y, x2 ? x2 + by_x : nullptr, x2 ? y2 + by_y : nullptr};
  }
  // Calls f(x, y) for each pair. f is compiled once.
  template <class F>
  [[gnu::always_inline]] void each(F&& f) const {
    const X* a = x;
    const Y* b = y;
    for (bool more = x2 != nullptr;; more = false) {
      f(a, b);
      if (!more) return;
      a = x2, b = y2;
    }
  }
};

// out[r][c] (+)= sum over samples of x(r, s) * y(c, s).
template <Index R, Index C, class T>
[[gnu::flatten]] inline void dot_tile(Pairs<T, T> pairs, Index xr, Index yc, Index samples,
                                      Number<T>* out, Index out_stride, bool add) {
  constexpr Index W = kPerRegister<Number<T>>;
  T acc[R][C] = {};
  auto step = [&](const T* x, const T* y, Index p, auto&& read) __attribute__((always_inline)) {
    T a[R];
    unrolled<R>([&](Index r) {
      const T value = read(x[r * xr + p]);
      a[r] = C > 1 ? pinned(value) : value;
    });
    unrolled<C>([&](Index c) {
      const T value = read(y[c * yc + p]), b = R > 1 ? pinned(value) : value;
      unrolled<R>([&](Index r) { acc[r][c] = a[r] * b + acc[r][c]; });
    });
  };
  const Index whole = samples / W, rest = samples % W;
  T place{};
  for (Index l = 0; l < W; ++l) place[l] = static_cast<Number<T>>(l);
  const auto inside = place < broadcast<T>(static_cast<double>(rest));
  pairs.each([&](const T* x, const T* y) __attribute__((always_inline)) {
    for (Index p = 0; p < whole; ++p) step(x, y, p, [](const T& v) { return v; });
    if (rest > 0) step(x, y, whole, [&](const T& v) { return inside ? v : T{}; });
  });
  if constexpr (std::is_same_v<T, Lane>) {
    double sums[padded(R * C, W)];
    reduce_all<R * C>(&acc[0][0], sums);
    for (Index r = 0; r < R; ++r)
      for (Index c = 0; c < C; ++c) {
        double& target = out[r * out_stride + c];
        target = add ? target + sums[r * C + c] : sums[r * C + c];
      }
  } else {
    unrolled<R>([&](Index r) {
      unrolled<C>([&](Index c) {
        Number<T>& target = out[r * out_stride + c];
        const Number<T> sum = reduce_add<Number<T>>(acc[r][c]);
        target = add ? target + sum : sum;
      });
    });
  }
}

template <class T>
[[gnu::noinline]] void dots(Pairs<T, T> pairs, Index xr, Index yc, Index samples,
                            Matrix<Number<T>> out, bool add) {
  in_pieces<kTileRows>(out.rows, [&]<Index R>(Index r) {
    in_pieces<kTileCols>(out.cols, [&]<Index C>(Index c) {
      dot_tile<R, C, T>(pairs.shifted(r * xr, c * yc), xr, yc, samples,
                        out.data + r * out.stride + c, out.stride, add);
    });
  });
}

// Transposes a square of registers, by exchanging halves of successively smaller squares.
template <class R>
[[gnu::flatten]] inline void transpose(R (&square)[kPerRegister<Number<R>>]) {
  constexpr Index W = kPerRegister<Number<R>>;
  auto halves = [&]<Index H>(std::integral_constant<Index, H>) {
    unrolled<W>([&](auto l) {
      if constexpr (!(l & H)) exchange<H>(square[l], square[l + H]);
    });
  };
  if constexpr (W > 8) halves(std::integral_constant<Index, 8>{});
  if constexpr (W > 4) halves(std::integral_constant<Index, 4>{});
  if constexpr (W > 2) halves(std::integral_constant<Index, 2>{});
  halves(std::integral_constant<Index, 1>{});
}

// Products of plain numbers by Eigen: out (+)= a b or a b^T. Compiled in instantiate/products.cpp,
// so that no other source file includes Eigen, which takes a second to parse.
template <class T>
void eigen_multiply(Matrix<const T> a, Matrix<const T> b, Matrix<T> out, bool add);
template <class T>
void eigen_multiply_nt(Matrix<const T> a, Matrix<const T> b, Matrix<T> out, bool add);

// The numbers of registers, with as many columns as samples.
template <class T>
Matrix<const Number<T>> numbers(const Rows<T>& m) {
  using N = Number<T>;
  return {reinterpret_cast<const N*>(m.data), m.rows, m.cols, m.stride * kPerRegister<N>};
}

// Size of an operand up to which `dots`, which copies nothing, is faster than Eigen, which packs
// its operands. Measured on a Xeon of family 6, model 207, with operands of 10 x 33 to 1000 x 1001
// and 128 to 456 samples (November 2026).
template <class T>
inline constexpr Index kStreamed = Index{1} << (sizeof(Number<T>) == 4 ? 14 : 16);

}  // namespace detail

// out (+)= a b
inline void multiply(Matrix<const Lane> a, Matrix<const Lane> b, Matrix<Lane> out,
                     bool add = false) {
  detail::tiled<detail::Keep::columns>(a.data, a.stride, 1, b.data, 1, b.stride, a.cols, out, add);
}
inline void multiply(Matrix<const double> a, Matrix<const double> b, Matrix<double> out,
                     bool add = false) {
  detail::eigen_multiply<double>(a, b, out, add);
}

// out (+)= a b^T
template <class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<Lane> out, bool add = false) {
  detail::tiled<detail::Keep::rows>(a.data, a.stride, 1, b.data, b.stride, 1, a.cols, out, add);
}
template <class A, class B, class T>
void multiply_nt(Rows<A> a, Rows<B> b, Matrix<T> out, bool add = false) {
  using R = std::remove_const_t<A>;
  if (a.rows <= 2 * detail::kTileRows || b.rows * b.cols <= detail::kStreamed<T>) {
    detail::dots<R>({a.data, b.data}, a.stride, b.stride, a.cols, out, add);
  } else {
    detail::eigen_multiply_nt<T>(detail::numbers(a), detail::numbers(b), out, add);
  }
}
template <class A, class B>
void multiply_nt(Matrix<A> a, Matrix<B> b, Matrix<double> out, bool add = false) {
  detail::eigen_multiply_nt<double>(a, b, out, add);
}

// out (+)= a b, with registers along the columns of b and sums in the order of its rows, as in
// lanes. Reads up to a register past the end of a row of b.
void multiply_rows(Matrix<const double> a, Matrix<const double> b, Matrix<double> out,
                   bool add = false);

// out <- a b for a matrix b that is symmetric to the bit; one run: with sums `in_order` or not.
inline void multiply_symmetric_matrix(Matrix<const Lane> a, Matrix<const Lane> b, Matrix<Lane> out,
                                      bool) {
  multiply_nt(a, b, out);
}
inline void multiply_symmetric_matrix(Matrix<const double> a, Matrix<const double> b,
                                      Matrix<double> out, bool in_order) {
  in_order ? multiply_rows(a, b, out) : multiply_nt(a, b, out);
}

// Transposed rows, so that a product along samples loads whole registers of rows: sample s of row r
// is number s * stride + r.
inline constexpr Index kMaxTransposed = kPanel + 1, kTransposedStride = 80;

// `stride` has room for whole registers of rows. The numbers past the last row are undefined.
template <class R>
void transpose(Rows<const R> rows, Number<R>* transposed, Index stride = kTransposedStride) {
  constexpr Index W = kPerRegister<Number<R>>;
  const Index rest = rows.rows % W, squares = rest > W / 2 ? rows.rows : rows.rows - rest;
  const Index count = rows.registers();
  for (Index r = 0; r < squares; r += W) {
    const R* from[W];
    for (Index l = 0; l < W; ++l)
      from[l] = rows.data + std::min(r + l, rows.rows - 1) * rows.stride;
    Number<R>* to = transposed + r;
    for (Index i = 0; i < count; ++i) {
      R square[W];
      unrolled<W>([&](auto l) { square[l] = from[l][i]; });
      detail::transpose(square);
      unrolled<W>([&](auto l) {
        store(square[l], to);
        to += stride;
      });
    }
  }
  for (Index r = squares; r < rows.rows; ++r) {
    const auto* from = reinterpret_cast<const Number<R>*>(rows.data + r * rows.stride);
    for (Index s = 0; s < count * W; ++s) transposed[s * stride + r] = from[s];
  }
}

// out (+)= a b^T, with b transposed; sums over samples one after the other, as in lanes.
template <class A>
void multiply_transposed(Rows<const A> a, const Number<A>* transposed, Matrix<Number<A>> out,
                         bool add, Index transposed_stride = kTransposedStride) {
  constexpr Index W = kPerRegister<Number<A>>;
  if constexpr (std::is_same_v<A, Lane>) {
    const Matrix<const double> b(transposed, a.cols, out.cols, transposed_stride);
    multiply_rows(detail::numbers(a), b, out, add);
  } else {
    const Index whole = out.cols / W;
    auto product = [&](Index row, Index rows, Index first, Index cols, auto* to, Index stride,
                       bool add_to) {
      detail::tiled<detail::Keep::columns, A>(
          reinterpret_cast<const Number<A>*>(a.data + row * a.stride), a.stride * W, Index{1},
          reinterpret_cast<const A*>(transposed) + first, Index{1}, transposed_stride / W, a.cols,
          rows, cols, to, stride, add_to);
    };
    product(0, out.rows, 0, whole, out.data, out.stride, add);
    if (out.cols % W == 0) return;
    A rest[kMaxTransposed];
    for (Index row = 0; row < out.rows; row += kMaxTransposed) {
      const Index rows = std::min(kMaxTransposed, out.rows - row);
      product(row, rows, whole, 1, rest, 1, false);
      for (Index r = 0; r < rows; ++r)
        for (Index c = whole * W; c < out.cols; ++c) {
          Number<A>& target = out.data[(row + r) * out.stride + c];
          target = add ? target + rest[r][c % W] : rest[r][c % W];
        }
    }
  }
}

// The same with registers along the rows of a, from a transposed: fewer operations if a has many
// rows or b few. `work` has room for out^T with rows of `stride`.
inline void multiply_transposed_left(const double* transposed, Index stride, Rows<const Lane> b,
                                     Matrix<double> out, bool add, double* work) {
  multiply_rows(detail::numbers(b), Matrix<const double>(transposed, b.cols, out.rows, stride),
                Matrix<double>(work, out.cols, out.rows, stride));
  for (Index r = 0; r < out.rows; ++r) {
    double* to = out.data + r * out.stride;
    for (Index c = 0; c < out.cols; ++c) {
      const double sum = work[c * stride + r];
      to[c] = add ? to[c] + sum : sum;
    }
  }
}

}  // namespace pylyap

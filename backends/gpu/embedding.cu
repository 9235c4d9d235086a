// The Embedding operator's kernels. NVRTC compiles this file by itself: no headers.
//
// Every parameter is a pointer, a 64-bit integer or a double, so that the host passes Python
// numbers. `i64` counts elements unless its name says bytes. Sizes: V rows of D columns, N indices.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

constexpr u32 FULL = 0xffffffffu;

#ifndef IN_FLIGHT
#define IN_FLIGHT 2  // rows a thread of a large gather has in flight
#endif

// ---------------------------------------------------------------------------------------------
// Types: storage that is moved as bits, and the arithmetic type of each

struct half16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

template <typename T> struct Wide { typedef float type; };
template <> struct Wide<double> { typedef double type; };

#ifndef EMULATED  // tests/support/cuda_on_cpu.h has these for a CPU
__device__ __forceinline__ float from_half(unsigned short bits) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(bits));
    return wide;
}
__device__ __forceinline__ unsigned short to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ __forceinline__ unsigned short to_bfloat(float x) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
#endif

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(half16 x) { return from_half(x.bits); }
__device__ __forceinline__ float widen(bfloat16 x) { return __uint_as_float((u32)x.bits << 16); }

template <typename T> __device__ __forceinline__ T narrow(typename Wide<T>::type x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ double narrow<double>(double x) { return x; }
template <> __device__ __forceinline__ half16 narrow<half16>(float x) { return {to_half(x)}; }
template <> __device__ __forceinline__ bfloat16 narrow<bfloat16>(float x) { return {to_bfloat(x)}; }

template <typename T, int COUNT> struct alignas(sizeof(T) * COUNT) Pack { T value[COUNT]; };

// ---------------------------------------------------------------------------------------------
// Programmatic dependent launch (sm_90): a kernel may begin before the one before it has ended.
// Every thread of every kernel waits first, so that memory is as if launches followed each other.
// No load is non-coherent (__ldg): those may be moved before the wait.

__device__ __forceinline__ void await_launch_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The blocks of the next kernel may come to the multiprocessors, where they wait for this one's end.
__device__ __forceinline__ void let_next_launch_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---------------------------------------------------------------------------------------------
// Out-of-range indices

__device__ __forceinline__ bool in_range(i64 index, i64 rows) { return (u64)index < (u64)rows; }

__device__ void tell(i64 index, i64* fault, i64* report) {
    i64 code = index < 0 ? index : index + 1;
    *fault = code;
    *(volatile i64*)report = code;
    __threadfence_system();
}

template <typename Index>
__device__ void check(const Index* indices, i64 count, i64 rows, i64* fault, i64* report) {
    i64 step = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        if (!in_range(indices[i], rows)) tell(indices[i], fault, report);
}

// ---------------------------------------------------------------------------------------------
// Forward. Moves each looked-up row once, the indices, and the output.

// Rows are likely to be wanted again, the output is not: caches are told to keep the former.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
__device__ __forceinline__ u64 keep_rows() {
    u64 policy;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
__device__ __forceinline__ uint4 load_row(const uint4* at, u64 policy) {
    uint4 held;
    asm volatile("ld.global.L1::evict_last.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(held.x), "=r"(held.y), "=r"(held.z), "=r"(held.w)
                 : "l"(at), "l"(policy));
    return held;
}
#else
__device__ __forceinline__ u64 keep_rows() { return 0; }
#endif
template <typename Unit> __device__ __forceinline__ Unit load_row(const Unit* at, u64) {
    return *at;
}

// `1 << shift` threads share a row and step through its units; each has ROWS rows in flight.
template <typename Unit, typename Index, int ROWS>
__device__ void gather(const char* weight, i64 stride_bytes, const Index* indices, Unit* out,
                       i64 count, i64 units, i64 rows, i64 padding_idx, i64 shift, i64* fault,
                       i64* report) {
    u64 keep = keep_rows();
    int lanes = 1 << shift, lane = threadIdx.x & (lanes - 1);
    int abreast = blockDim.x >> shift;
    i64 step = (i64)gridDim.x * abreast * ROWS;
    i64 first = (i64)blockIdx.x * abreast * ROWS + (threadIdx.x >> shift);
    for (i64 row = first; row < count; row += step) {
        i64 index[ROWS];
#pragma unroll
        for (int k = 0; k < ROWS; ++k) {  // all of them before the first is looked at
            i64 at = row + (i64)k * abreast;
            if (at < count) index[k] = indices[at];
        }
        const Unit* from[ROWS];  // null where the output is 0
#pragma unroll
        for (int k = 0; k < ROWS; ++k) {
            from[k] = nullptr;
            if (row + (i64)k * abreast >= count) continue;
            if (!in_range(index[k], rows)) {
                if (lane == 0) tell(index[k], fault, report);
            } else if (index[k] != padding_idx) {
                from[k] = (const Unit*)(weight + index[k] * stride_bytes);
            }
        }
        for (i64 unit = lane; unit < units; unit += lanes) {
            Unit held[ROWS];
#pragma unroll
            for (int k = 0; k < ROWS; ++k)
                held[k] = from[k] ? load_row(from[k] + unit, keep) : Unit{};
#pragma unroll
            for (int k = 0; k < ROWS; ++k) {
                i64 at = row + (i64)k * abreast;
                if (at < count) __stcs(out + at * units + unit, held[k]);
            }
        }
    }
}

// Any strides: one thread an element.
template <typename Unit, typename Index>
__device__ void gather_strided(const Unit* weight, i64 row_stride, i64 column_stride,
                               const Index* indices, Unit* out, i64 count, i64 width, i64 rows,
                               i64 padding_idx, i64* fault, i64* report) {
    i64 step = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count * width; i += step) {
        i64 column = i % width, index = indices[i / width];
        if (in_range(index, rows))
            out[i] = index == padding_idx ? Unit{}
                                          : weight[index * row_stride + column * column_stride];
        else if (column == 0)
            tell(index, fault, report);
    }
}

// ---------------------------------------------------------------------------------------------
// Renorm. Moves each looked-up row in, and each row above the bound out; a warp a row.

enum Norm { ZERO, ONE, TWO, GREATEST, LEAST, POWER };

__device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }

__device__ __forceinline__ double first_term(i64 norm) {
    return norm == LEAST ? infinity() : 0.0;
}

__device__ __forceinline__ double add_term(double sum, double x, i64 norm, double p) {
    x = fabs(x);
    switch (norm) {
        case ZERO: return sum + (x != 0.0);
        case ONE: return sum + x;
        case TWO: return sum + x * x;
        case GREATEST: return x != x || x > sum ? x : sum;
        case LEAST: return x != x || x < sum ? x : sum;
        default: return sum + pow(x, p);
    }
}

__device__ __forceinline__ double merge_terms(double a, double b, i64 norm) {
    if (norm == GREATEST) return a != a || a > b ? a : b;
    if (norm == LEAST) return a != a || a < b ? a : b;
    return a + b;
}

__device__ __forceinline__ double root(double sum, i64 norm, double p) {
    if (norm == TWO) return sqrt(sum);
    return norm == POWER ? pow(sum, 1.0 / p) : sum;
}

constexpr int HELD = 2;  // packs of a row that a lane loads before it uses the first

template <typename T, int VECTOR>
__device__ double warp_norm(const T* row, i64 column_stride, i64 width, i64 norm, double p,
                            double divisor) {
    double sum = first_term(norm);
    for (i64 first = (threadIdx.x & 31) * VECTOR; first < width; first += 32 * HELD * VECTOR) {
        Pack<T, VECTOR> pack[HELD];
#pragma unroll
        for (int h = 0; h < HELD; ++h) {
            i64 column = first + 32 * h * VECTOR;
            if (column < width) pack[h] = *(const Pack<T, VECTOR>*)(row + column * column_stride);
        }
#pragma unroll
        for (int h = 0; h < HELD; ++h) {
            if (first + 32 * h * VECTOR >= width) break;
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                double x = widen(pack[h].value[k]);
                sum = add_term(sum, divisor == 1.0 ? x : x / divisor, norm, p);
            }
        }
    }
    for (int offset = 16; offset; offset >>= 1)
        sum = merge_terms(sum, __shfl_xor_sync(FULL, sum, offset), norm);
    return root(sum, norm, p);
}

// A row's norm is `root` times `divisor`, which is 1 unless terms over- or underflow without it.
struct Length { double root, divisor; };

template <typename T, int VECTOR>
__device__ Length careful_norm(const T* row, i64 column_stride, i64 width, i64 norm, double p) {
    double found = warp_norm<T, VECTOR>(row, column_stride, width, norm, p, 1.0);
    bool plain = norm == ZERO || norm == GREATEST || norm == LEAST;
    if (plain || (found > 0.0 && found < infinity())) return {found, 1.0};
    // the sum may have over- or underflown where the norm does not
    double most = warp_norm<T, VECTOR>(row, column_stride, width, GREATEST, p, 1.0);
    if (!(most > 0.0 && most < infinity())) return {found, 1.0};
    return {warp_norm<T, VECTOR>(row, column_stride, width, norm, p, most), most};
}

template <typename T, int VECTOR>
__device__ __forceinline__ void scale(Pack<T, VECTOR>& pack, double factor, double divisor) {
    typedef typename Wide<T>::type wide;
    if (factor > 1e-30 && divisor == 1.0) {  // a float32 factor keeps its precision
#pragma unroll
        for (int k = 0; k < VECTOR; ++k)
            pack.value[k] = narrow<T>(widen(pack.value[k]) * (wide)factor);
        return;
    }
#pragma unroll
    for (int k = 0; k < VECTOR; ++k)
        pack.value[k] = narrow<T>((wide)((double)widen(pack.value[k]) / divisor * factor));
}

template <typename T, int VECTOR>
__device__ void bound_row(T* row, i64 column_stride, i64 width, double max_norm, i64 norm, double p) {
    Length length = careful_norm<T, VECTOR>(row, column_stride, width, norm, p);
    double found = length.divisor * length.root;
    if (!(found > max_norm)) return;
    // a norm beyond the largest number still has a factor: that of the row over its divisor
    bool beyond = length.divisor != 1.0 && !(found < infinity());
    double factor = beyond ? max_norm / length.root : max_norm / (found + 1e-7);
    for (i64 column = (threadIdx.x & 31) * VECTOR; column < width; column += 32 * VECTOR) {
        Pack<T, VECTOR>* at = (Pack<T, VECTOR>*)(row + column * column_stride);
        Pack<T, VECTOR> pack = *at;
        scale<T, VECTOR>(pack, factor, beyond ? length.divisor : 1.0);
        *at = pack;
    }
}

constexpr int WHOLE = 8;  // packs of a row that a lane keeps

// Reads a row once: for the Euclidean norm of one no wider than WHOLE packs a lane. Does nothing and
// says so where the sum of squares over- or underflows.
template <typename T, int VECTOR>
__device__ bool bound_whole_row(T* row, i64 width, double max_norm) {
    Pack<T, VECTOR> pack[WHOLE];
    i64 own = (threadIdx.x & 31) * VECTOR;
    double sum = 0.0;
#pragma unroll
    for (int h = 0; h < WHOLE; ++h)
        if (own + 32 * h * VECTOR < width) pack[h] = *(Pack<T, VECTOR>*)(row + own + 32 * h * VECTOR);
#pragma unroll
    for (int h = 0; h < WHOLE; ++h) {
        if (own + 32 * h * VECTOR >= width) break;
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) {
            double x = widen(pack[h].value[k]);
            sum += x * x;
        }
    }
    for (int offset = 16; offset; offset >>= 1) sum += __shfl_xor_sync(FULL, sum, offset);
    double found = sqrt(sum);
    if (!(found > 0.0 && found < infinity())) return false;
    if (!(found > max_norm)) return true;
#pragma unroll
    for (int h = 0; h < WHOLE; ++h) {
        if (own + 32 * h * VECTOR >= width) break;
        scale<T, VECTOR>(pack[h], max_norm / (found + 1e-7), 1.0);
        *(Pack<T, VECTOR>*)(row + own + 32 * h * VECTOR) = pack[h];
    }
    return true;
}

constexpr int CLAIMS = 16;  // indices that a warp claims at a time

template <typename T, typename Index, int VECTOR>
__device__ void renorm(T* weight, i64 row_stride, i64 column_stride, const Index* indices,
                       i64 count, i64 width, int* claimed, double max_norm, i64 norm, double p,
                       const i64* fault) {
    if (*fault) return;
    int lane = threadIdx.x & 31;
    i64 step = (i64)gridDim.x * (blockDim.x >> 5) * CLAIMS;
    i64 first = (((i64)blockIdx.x * blockDim.x + threadIdx.x) >> 5) * CLAIMS;
    for (i64 i = first; i < count; i += step) {
        i64 index = lane < CLAIMS && i + lane < count ? indices[i + lane] : -1;
        bool mine = false;
        if (index >= 0)  // looking first spares a hot row its atomics
            mine = *(volatile int*)(claimed + index) == 0 && atomicExch(claimed + index, 1) == 0;
        for (u32 left = __ballot_sync(FULL, mine); left; left &= left - 1) {
            T* row = weight + __shfl_sync(FULL, index, __ffs(left) - 1) * row_stride;
            bool whole = VECTOR > 1 && norm == TWO && width <= 32 * WHOLE * VECTOR;
            if (!whole || !bound_whole_row<T, VECTOR>(row, width, max_norm))
                bound_row<T, VECTOR>(row, column_stride, width, max_norm, norm, p);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Backward with atomics: the gradient is zero before; float32 and float64

__device__ __forceinline__ void add_pack(float* to, Pack<float, 4> x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x.value[0]),
                 "f"(x.value[1]), "f"(x.value[2]), "f"(x.value[3])
                 : "memory");
#else
    for (int k = 0; k < 4; ++k) atomicAdd(to + k, x.value[k]);
#endif
}
template <typename T> __device__ __forceinline__ void add_pack(T* to, Pack<T, 1> x) {
    atomicAdd(to, x.value[0]);
}
__device__ __forceinline__ void add_pack(double* to, Pack<double, 2> x) {
    atomicAdd(to, x.value[0]);
    atomicAdd(to + 1, x.value[1]);
}

template <typename T, typename Index, int VECTOR>
__device__ void add_rows(const T* upstream, i64 row_stride, const Index* indices, T* gradient,
                         i64 count, i64 width, i64 padding_idx, i64 shift) {
    int lanes = 1 << shift, lane = threadIdx.x & (lanes - 1);
    int abreast = blockDim.x >> shift;
    i64 step = (i64)gridDim.x * abreast;
    for (i64 i = (i64)blockIdx.x * abreast + (threadIdx.x >> shift); i < count; i += step) {
        i64 index = indices[i];
        if (index == padding_idx) continue;
        for (i64 column = lane * VECTOR; column < width; column += lanes * VECTOR)
            add_pack(gradient + index * width + column,
                     *(const Pack<T, VECTOR>*)(upstream + i * row_stride + column));
    }
}

// ---------------------------------------------------------------------------------------------
// Backward without atomics, 1: a stable radix sort of the indices' positions
//
// Three kernels a pass of at most 9 bits: count digits by block, add up over blocks, place. A block
// takes a tile of THREADS * ROUNDS indices. Blocks beyond those that sort clear a share of the
// gradient meanwhile.

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int DIGIT_BITS = 9, BINS = 1 << DIGIT_BITS;

struct Clearing {  // bytes, from a 16-byte boundary
    char* begin;
    i64 bytes, share, shares;
};

__device__ void clear_share(Clearing clearing, i64 block, i64 blocks) {
    i64 units = clearing.bytes / 16;
    i64 begin = units * clearing.share / clearing.shares;
    i64 end = units * (clearing.share + 1) / clearing.shares;
    i64 step = blocks * blockDim.x;
#pragma unroll 4
    for (i64 i = begin + block * blockDim.x + threadIdx.x; i < end; i += step)
        ((uint4*)clearing.begin)[i] = make_uint4(0, 0, 0, 0);
    if (clearing.share == 0 && block == 0 && threadIdx.x < clearing.bytes % 16)
        clearing.begin[units * 16 + threadIdx.x] = 0;
}

// Which lanes have this digit: a vote a bit, since __match_any_sync takes a step a distinct value.
__device__ __forceinline__ u32 lanes_alike(u32 digit, bool there) {
    u32 alike = __ballot_sync(FULL, there);
#pragma unroll
    for (int bit = 0; bit < DIGIT_BITS; ++bit) {
        u32 votes = __ballot_sync(FULL, digit >> bit & 1);
        alike &= digit >> bit & 1 ? votes : ~votes;
    }
    return alike;
}

template <typename Source>
__device__ __forceinline__ u32 key_at(const Source* keys, i64 at, i64 rows, i64 padding_idx) {
    i64 index = keys[at];
    return (u32)(index == padding_idx ? rows : index);  // padding goes last
}
template <>
__device__ __forceinline__ u32 key_at<u32>(const u32* keys, i64 at, i64, i64) { return keys[at]; }

template <typename Source, int ROUNDS>
__device__ void count_digits(const Source* keys, i64 count, i64 rows, i64 padding_idx, i64 shift,
                             i64 bits, u32* counts, u32* owners, Clearing clearing) {
    constexpr int TILE = THREADS * ROUNDS;
    i64 blocks = (count + TILE - 1) / TILE;
    if (blockIdx.x >= blocks) {
        clear_share(clearing, blockIdx.x - blocks, gridDim.x - blocks);
        return;
    }
    __shared__ u32 found[BINS];
    u32 bins = 1u << bits;
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) found[bin] = 0;
    if (blockIdx.x == 0 && threadIdx.x == 0) *owners = 0;
    __syncthreads();
    i64 first = (i64)blockIdx.x * TILE;
#pragma unroll 4
    for (int round = 0; round < ROUNDS; ++round) {
        i64 at = first + round * THREADS + threadIdx.x;
        if (at < count)
            atomicAdd(&found[(key_at(keys, at, rows, padding_idx) >> shift) & (bins - 1)], 1);
    }
    __syncthreads();
    for (u32 bin = threadIdx.x; bin < bins; bin += THREADS)
        counts[bin * blocks + blockIdx.x] = found[bin];
}

__device__ __forceinline__ u32 sum_of_lanes_up_to_own(u32 sum) {
    int lane = threadIdx.x & 31;
    for (int offset = 1; offset < 32; offset <<= 1) {
        u32 other = __shfl_up_sync(FULL, sum, offset);
        if (lane >= offset) sum += other;
    }
    return sum;
}

// A warp a digit: counts become the places before each block, totals the digits' sums.
__device__ void add_up(u32* counts, u32* totals, i64 blocks, i64 bins, Clearing clearing) {
    i64 adding = (bins + WARPS - 1) / WARPS;
    if (blockIdx.x >= adding) {
        clear_share(clearing, blockIdx.x - adding, gridDim.x - adding);
        return;
    }
    i64 bin = (i64)blockIdx.x * WARPS + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (bin >= bins) return;
    constexpr int LOADED = 8;  // of a lane before the first is used
    u32 before = 0;
    for (i64 first = lane; first - lane < blocks; first += 32 * LOADED) {
        u32* at = counts + bin * blocks + first;
        u32 own[LOADED];
#pragma unroll
        for (int k = 0; k < LOADED; ++k) own[k] = first + 32 * k < blocks ? at[32 * k] : 0;
#pragma unroll
        for (int k = 0; k < LOADED; ++k) {
            if (first - lane + 32 * k >= blocks) break;
            u32 sum = sum_of_lanes_up_to_own(own[k]);
            if (first + 32 * k < blocks) at[32 * k] = before + sum - own[k];
            before += __shfl_sync(FULL, sum, 31);
        }
    }
    if (lane == 0) totals[bin] = before;
}

// Sum of all totals before each digit, into `starts`, which may be `totals`; two digits a thread.
__device__ void scan_pairs(const u32* totals, u32 bins, u32* starts, u32* by_warp) {
    u32 mine = threadIdx.x * 2, lane = threadIdx.x & 31;
    u32 a = mine < bins ? totals[mine] : 0, b = mine + 1 < bins ? totals[mine + 1] : 0;
    u32 sum = sum_of_lanes_up_to_own(a + b);
    if (lane == 31) by_warp[threadIdx.x >> 5] = sum;
    __syncthreads();
    u32 before = 0;
    for (u32 warp = 0; warp < threadIdx.x >> 5; ++warp) before += by_warp[warp];
    if (mine < BINS) {
        starts[mine] = before + sum - a - b;
        starts[mine + 1] = before + sum - b;
    }
    __syncthreads();
}

// How many equal digits come before in the warp's part of the tile; counts this one.
__device__ __forceinline__ u32 ranked(unsigned short* seen, u32 digit, bool there) {
    u32 lane = threadIdx.x & 31, alike = lanes_alike(digit, there);
    u32 leader = alike ? __ffs(alike) - 1 : 0, before = 0;
    if (there && lane == leader) {
        before = seen[digit];
        seen[digit] = (unsigned short)(before + __popc(alike));
    }
    before = __shfl_sync(FULL, before, leader);
    __syncwarp();
    return before + __popc(alike & ((1u << lane) - 1));
}

// Turn the warps' counts of a digit into sums of those before each; give the total.
__device__ __forceinline__ u32 add_warps(unsigned short (*seen)[BINS], u32 bin) {
    u32 own[WARPS], total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) own[w] = seen[w][bin];
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        seen[w][bin] = (unsigned short)total;
        total += own[w];
    }
    return total;
}

template <typename Source, int ROUNDS>
__device__ void place(const Source* keys, const u32* positions, i64 count, i64 rows,
                      i64 padding_idx, i64 shift, i64 bits, const u32* counts, const u32* totals,
                      u32* keys_out, u32* positions_out, Clearing clearing) {
    constexpr int TILE = THREADS * ROUNDS;
    i64 blocks = (count + TILE - 1) / TILE;
    if (blockIdx.x >= blocks) {
        clear_share(clearing, blockIdx.x - blocks, gridDim.x - blocks);
        return;
    }
    __shared__ unsigned short seen[WARPS][BINS];
    __shared__ u32 starts[BINS], here[BINS], by_warp[WARPS], sorted[2][TILE];
    u32 bins = 1u << bits, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = threadIdx.x; i < WARPS * BINS; i += THREADS) seen[i / BINS][i % BINS] = 0;
    scan_pairs(totals, bins, starts, by_warp);
    i64 tile = (i64)blockIdx.x * TILE, first = tile + warp * (32 * ROUNDS) + lane;
    u32 key[ROUNDS], rank[ROUNDS];
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        i64 at = first + round * 32;
        key[round] = at < count ? key_at(keys, at, rows, padding_idx) : 0;
    }
    __syncthreads();
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round)
        rank[round] = ranked(seen[warp], (key[round] >> shift) & (bins - 1),
                             first + round * 32 < count);
    __syncthreads();
    for (u32 bin = threadIdx.x; bin < bins; bin += THREADS) here[bin] = add_warps(seen, bin);
    __syncthreads();
    scan_pairs(here, bins, here, by_warp);
    __syncthreads();
    for (u32 bin = threadIdx.x; bin < bins; bin += THREADS)
        starts[bin] += counts[bin * blocks + blockIdx.x] - here[bin];
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        i64 at = first + round * 32;
        if (at >= count) continue;
        u32 digit = (key[round] >> shift) & (bins - 1);
        u32 to = here[digit] + seen[warp][digit] + rank[round];
        sorted[0][to] = key[round];
        sorted[1][to] = positions ? positions[at] : (u32)at;
    }
    __syncthreads();
    i64 held = count - tile < TILE ? count - tile : TILE;
    for (u32 i = threadIdx.x; i < held; i += THREADS) {
        u32 to = starts[(sorted[0][i] >> shift) & (bins - 1)] + i;
        keys_out[to] = sorted[0][i];
        positions_out[to] = sorted[1][i];
    }
}

// For at most FEW indices: each counts the keys that come before its own, all pairs compared, while
// the other blocks clear the gradient. Float32 holds keys below 2^24, a saturated difference of them
// is 1 or 0, and floats are added twice as fast as integers are compared.
constexpr int FEW = 8192, FEW_THREADS = 512, SLICES = FEW_THREADS / 32, MINE = 64;

template <typename Source>
__device__ void rank_few(const Source* keys, i64 count, i64 rows, i64 padding_idx, u32* keys_out,
                         u32* positions_out, u32* owners, Clearing clearing) {
    int tiles = (int)((count + MINE - 1) / MINE), tile = blockIdx.x;
    if (tile >= tiles) {
        clear_share(clearing, tile - tiles, gridDim.x - tiles);
        return;
    }
    __shared__ Pack<float, 4> packs[FEW / 4];
    __shared__ float less[SLICES][MINE];
    float* all = packs[0].value;
    if (tile == 0 && threadIdx.x == 0) *owners = 0;
#pragma unroll 8
    for (int i = threadIdx.x; i < tiles * MINE; i += FEW_THREADS)
        all[i] = i < count ? (float)key_at(keys, i, rows, padding_idx) : (float)infinity();
    __syncthreads();
    int lane = threadIdx.x & 31, slice = threadIdx.x >> 5;
    float first = all[tile * MINE + lane], second = all[tile * MINE + 32 + lane];
    float before[2] = {};
    for (int other = slice; other < tiles; other += SLICES) {
        if (other == tile) {
            for (int k = 0; k < MINE; ++k) {
                float key = all[tile * MINE + k];
                before[0] += key < first || (key == first && k < lane);
                before[1] += key < second || (key == second && k < lane + 32);
            }
            continue;
        }
        float equal = other < tile;  // an equal key counts where it stands before
        float a = first + equal, b = second + equal;
#pragma unroll
        for (int k = 0; k < MINE / 4; ++k) {
            Pack<float, 4> four = packs[other * (MINE / 4) + k];
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                before[0] += __saturatef(a - four.value[c]);
                before[1] += __saturatef(b - four.value[c]);
            }
        }
    }
    less[slice][lane] = before[0];
    less[slice][lane + 32] = before[1];
    __syncthreads();
    int at = tile * MINE + threadIdx.x;
    if (threadIdx.x >= MINE || at >= count) return;
    float rank = 0;
    for (int k = 0; k < SLICES; ++k) rank += less[k][threadIdx.x];
    keys_out[(u32)rank] = (u32)all[at];
    positions_out[(u32)rank] = (u32)at;
}

// ---------------------------------------------------------------------------------------------
// Backward without atomics, 2: sums of runs of equal keys
//
// Each group of lanes walks `length` sorted positions; each lane fetches one position for all. Where
// a run goes on into the next group and ends there, the group where it begins walks on to its end.
// Of a run that crosses two boundaries or more each group keeps its part, and the group where it
// begins lists itself as owner.

template <typename T, int VECTOR, int AHEAD>
__device__ void reduce(const T* upstream, i64 row_stride, const u32* keys, const u32* positions,
                       i64 count, i64 rows, i64 width, i64 length, i64 shift, T* gradient,
                       typename Wide<T>::type* parts, u32* owners, i64 by_frequency) {
    typedef typename Wide<T>::type wide;
    int lanes = 1 << shift, lane = threadIdx.x & (lanes - 1);
    u32 columns = ((u32)width + lanes * VECTOR - 1) / (lanes * VECTOR);
    u32 walk = blockIdx.x * (blockDim.x >> shift) + (threadIdx.x >> shift);
    i64 group = walk / columns;  // neighbours read one row side by side
    i64 begin = group * length, end = begin + length < count ? begin + length : count;
    i64 column = ((i64)(walk % columns) * lanes + lane) * VECTOR;
    bool there = begin < count, inside = there && column < width;  // the others only fetch
    auto sorted = [&](i64 at) { return at >= 0 && at < count ? keys[at] : FULL; };

    u32 head = there ? sorted(begin) : FULL, tail = there ? sorted(end - 1) : FULL;
    bool came = head != FULL && sorted(begin - 1) == head;
    bool goes_on = tail != FULL && sorted(end) == tail;
    bool goes_back = came && (sorted(begin - length - 1) == head || sorted(end) == head);
    bool whole_tail = goes_on && sorted(end + length) != tail && !(came && head == tail);
    if (whole_tail) end = end + length < count ? end + length : count;
    i64 edge = begin + length;

    wide sum[VECTOR] = {};
    u32 current = goes_back ? head : FULL, terms = 0;
    auto flush = [&](bool goes_on) {
        if (current >= rows) return;
        if (goes_back || goes_on) {
            wide* part = parts + (group * 2 + !goes_back) * width + column;
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) part[k] = sum[k];
            if (!goes_back && column == 0) owners[1 + atomicAdd(owners, 1)] = (u32)group;
            return;
        }
        Pack<T, VECTOR> pack;
#pragma unroll
        for (int k = 0; k < VECTOR; ++k)
            pack.value[k] = narrow<T>(by_frequency ? sum[k] / (wide)terms : sum[k]);
        *(Pack<T, VECTOR>*)(gradient + (i64)current * width + column) = pack;
    };

    u32 next_key = FULL, next_position = 0;
    auto fetch = [&](i64 at) {
        next_key = there && at < end ? keys[at] : FULL;
        if (there && at < end) next_position = positions[at];
    };
    bool skips_head = came && !goes_back;
    int most = length < lanes ? (int)length : lanes;
    fetch(begin + lane);
    for (i64 chunk = begin; __ballot_sync(FULL, there && chunk < end); chunk += most) {
        u32 own_key = next_key, own_position = next_position;
        bool neighbours = chunk + lane < edge ? skips_head && own_key == head : own_key != tail;
        if (neighbours) own_key = FULL;
        fetch(chunk + most + lane);
        for (int turn = 0; turn < most; turn += AHEAD) {
            u32 key[AHEAD];
            Pack<T, VECTOR> row[AHEAD];
#pragma unroll
            for (int k = 0; k < AHEAD; ++k) {
                key[k] = __shfl_sync(FULL, own_key, turn + k, lanes);
                u32 position = __shfl_sync(FULL, own_position, turn + k, lanes);
                if (inside && key[k] < rows)
                    row[k] = *(const Pack<T, VECTOR>*)(upstream + (i64)position * row_stride +
                                                       column);
            }
#pragma unroll
            for (int k = 0; k < AHEAD; ++k) {
                if (!inside || key[k] == FULL) continue;
                if (key[k] != current) {
                    flush(false);
                    current = key[k];
                    terms = 0;
                    goes_back = false;
#pragma unroll
                    for (int c = 0; c < VECTOR; ++c) sum[c] = 0;
                }
                ++terms;
                if (key[k] < rows)
#pragma unroll
                    for (int c = 0; c < VECTOR; ++c) sum[c] += widen(row[k].value[c]);
            }
        }
    }
    if (inside) flush(goes_on && !whole_tail);
}

// The first position from `low` on whose key is above (or, with `equal`, not below) `key`.
__device__ i64 bound(const u32* keys, i64 low, i64 high, u32 key, bool equal) {
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (equal ? keys[middle] < key : keys[middle] <= key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Adds the parts of each run that has any, in an order that only the run's place decides. A block has
// 32 threads across 128 columns, and DOWN such rows of threads.
constexpr int DOWN = 16, ACROSS = 32, COLUMNS = 4 * ACROSS;

template <typename T>
__device__ void combine(const u32* keys, i64 count, i64 width, i64 length, T* gradient,
                        const typename Wide<T>::type* parts, const u32* owners,
                        i64 by_frequency) {
    typedef typename Wide<T>::type wide;
    __shared__ wide sums[DOWN][COLUMNS];
    int across = threadIdx.x & (ACROSS - 1), down = threadIdx.x / ACROSS;
    i64 own = (i64)blockIdx.y * COLUMNS;
    for (u32 turn = blockIdx.x; turn < owners[0]; turn += gridDim.x) {
        i64 group = owners[1 + turn], last = group * length + length - 1;
        u32 key = keys[last];
        i64 groups = 1;
        for (int more = blockDim.x; more == blockDim.x; groups += more) {
            i64 begin = (group + groups + threadIdx.x) * length;
            more = __syncthreads_count(begin < count && keys[begin] == key);
        }
        wide sum[4] = {};
#pragma unroll 16
        for (i64 k = down; k < groups; k += DOWN) {
            const wide* part = parts + ((group + k) * 2 + (k == 0)) * width + own + across;
#pragma unroll
            for (int c = 0; c < 4; ++c)
                if (own + across + c * ACROSS < width) sum[c] += part[c * ACROSS];
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[down][across + c * ACROSS] = sum[c];
        __syncthreads();
        i64 column = own + threadIdx.x;
        if (threadIdx.x < COLUMNS && column < width) {
            wide total = 0;
            for (int k = 0; k < DOWN; ++k) total += sums[k][threadIdx.x];
            if (by_frequency) {
                i64 final = (group + groups - 1) * length;
                i64 most = final + length < count ? final + length : count;
                i64 stop = bound(keys, final, most, key, false);
                total /= (wide)(stop - bound(keys, group * length, last, key, true));
            }
            gradient[(i64)key * width + column] = narrow<T>(total);
        }
        __syncthreads();
    }
}

// ---------------------------------------------------------------------------------------------
// What the host can launch

#define INDEXED(SUFFIX, INDEX)                                                                   \
    extern "C" __global__ void check_##SUFFIX(const INDEX* indices, i64 count, i64 rows,         \
                                              i64* fault, i64* report) {                         \
        let_next_launch_begin();                                                                 \
        await_launch_before();                                                                   \
        check(indices, count, rows, fault, report);                                              \
    }                                                                                            \
    MOVED(SUFFIX, INDEX, 1, unsigned char)                                                       \
    MOVED(SUFFIX, INDEX, 2, unsigned short)                                                      \
    MOVED(SUFFIX, INDEX, 4, u32)                                                                 \
    MOVED(SUFFIX, INDEX, 8, uint2)                                                               \
    MOVED(SUFFIX, INDEX, 16, uint4)                                                              \
    ADDED(SUFFIX, INDEX, float32, float, 4)                                                      \
    ADDED(SUFFIX, INDEX, float64, double, 2)                                                     \
    SORTED(SUFFIX, INDEX, 4)                                                                     \
    SORTED(SUFFIX, INDEX, 16)                                                                    \
    RANKED(SUFFIX, INDEX)                                                                        \
    BOUND(SUFFIX, INDEX, float32, float, 4)                                                      \
    BOUND(SUFFIX, INDEX, float64, double, 2)                                                     \
    BOUND(SUFFIX, INDEX, float16, half16, 8)                                                     \
    BOUND(SUFFIX, INDEX, bfloat16, bfloat16, 8)

#define MOVED(SUFFIX, INDEX, BYTES, UNIT)                                                        \
    extern "C" __global__ void __launch_bounds__(256) gather_##BYTES##_##SUFFIX(                 \
        const char* weight, i64 stride_bytes, const INDEX* indices, UNIT* out, i64 count,        \
        i64 units, i64 rows, i64 padding_idx, i64 shift, i64* fault, i64* report) {              \
        await_launch_before();                                                                   \
        gather<UNIT, INDEX, IN_FLIGHT>(weight, stride_bytes, indices, out, count, units, rows,   \
                                       padding_idx, shift, fault, report);                       \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) gather_wide_##BYTES##_##SUFFIX(            \
        const char* weight, i64 stride_bytes, const INDEX* indices, UNIT* out, i64 count,        \
        i64 units, i64 rows, i64 padding_idx, i64 shift, i64* fault, i64* report) {              \
        await_launch_before();                                                                   \
        gather<UNIT, INDEX, 1>(weight, stride_bytes, indices, out, count, units, rows,           \
                               padding_idx, shift, fault, report);                               \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) gather_few_##BYTES##_##SUFFIX(             \
        const char* weight, i64 stride_bytes, const INDEX* indices, UNIT* out, i64 count,        \
        i64 units, i64 rows, i64 padding_idx, i64 shift, i64* fault, i64* report) {              \
        let_next_launch_begin();                                                                 \
        await_launch_before();                                                                   \
        gather<UNIT, INDEX, 1>(weight, stride_bytes, indices, out, count, units, rows,           \
                               padding_idx, shift, fault, report);                               \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) gather_strided_##BYTES##_##SUFFIX(         \
        const UNIT* weight, i64 row_stride, i64 column_stride, const INDEX* indices, UNIT* out,  \
        i64 count, i64 width, i64 rows, i64 padding_idx, i64* fault, i64* report) {              \
        await_launch_before();                                                                   \
        gather_strided<UNIT, INDEX>(weight, row_stride, column_stride, indices, out, count,      \
                                    width, rows, padding_idx, fault, report);                    \
    }

#define BOUND(SUFFIX, INDEX, NAME, TYPE, VECTOR)                                                 \
    extern "C" __global__ void __launch_bounds__(256) renorm_vector_##NAME##_##SUFFIX(           \
        TYPE* weight, i64 row_stride, i64 column_stride, const INDEX* indices, i64 count,        \
        i64 width, int* claimed, double max_norm, i64 norm, double p, const i64* fault) {        \
        await_launch_before();                                                                   \
        renorm<TYPE, INDEX, VECTOR>(weight, row_stride, 1, indices, count, width, claimed,       \
                                    max_norm, norm, p, fault);                                   \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) renorm_##NAME##_##SUFFIX(                  \
        TYPE* weight, i64 row_stride, i64 column_stride, const INDEX* indices, i64 count,        \
        i64 width, int* claimed, double max_norm, i64 norm, double p, const i64* fault) {        \
        await_launch_before();                                                                   \
        renorm<TYPE, INDEX, 1>(weight, row_stride, column_stride, indices, count, width,         \
                               claimed, max_norm, norm, p, fault);                               \
    }

#define ADDED(SUFFIX, INDEX, NAME, TYPE, VECTOR)                                                 \
    extern "C" __global__ void __launch_bounds__(256) add_rows_vector_##NAME##_##SUFFIX(         \
        const TYPE* upstream, i64 row_stride, const INDEX* indices, TYPE* gradient, i64 count,   \
        i64 width, i64 padding_idx, i64 shift) {                                                 \
        await_launch_before();                                                                   \
        add_rows<TYPE, INDEX, VECTOR>(upstream, row_stride, indices, gradient, count, width,     \
                                      padding_idx, shift);                                       \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) add_rows_##NAME##_##SUFFIX(                \
        const TYPE* upstream, i64 row_stride, const INDEX* indices, TYPE* gradient, i64 count,   \
        i64 width, i64 padding_idx, i64 shift) {                                                 \
        await_launch_before();                                                                   \
        add_rows<TYPE, INDEX, 1>(upstream, row_stride, indices, gradient, count, width,          \
                                 padding_idx, shift);                                            \
    }

#define SORTED(SUFFIX, SOURCE, ROUNDS)                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) count_digits_##ROUNDS##_##SUFFIX(      \
        const SOURCE* keys, i64 count, i64 rows, i64 padding_idx, i64 shift, i64 bits,           \
        u32* counts, u32* owners, char* clear, i64 clear_bytes, i64 share, i64 shares) {         \
        let_next_launch_begin();                                                                 \
        await_launch_before();                                                                   \
        count_digits<SOURCE, ROUNDS>(keys, count, rows, padding_idx, shift, bits, counts, owners,\
                                     {clear, clear_bytes, share, shares});                       \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) place_##ROUNDS##_##SUFFIX(             \
        const SOURCE* keys, const u32* positions, i64 count, i64 rows, i64 padding_idx,          \
        i64 shift, i64 bits, const u32* counts, const u32* totals, u32* keys_out,                \
        u32* positions_out, char* clear, i64 clear_bytes, i64 share, i64 shares) {               \
        await_launch_before();                                                                   \
        place<SOURCE, ROUNDS>(keys, positions, count, rows, padding_idx, shift, bits, counts,    \
                              totals, keys_out, positions_out,                                   \
                              {clear, clear_bytes, share, shares});                              \
    }

#define RANKED(SUFFIX, SOURCE)                                                                   \
    extern "C" __global__ void __launch_bounds__(FEW_THREADS) rank_few_##SUFFIX(                 \
        const SOURCE* keys, i64 count, i64 rows, i64 padding_idx, u32* keys_out,                 \
        u32* positions_out, u32* owners, char* clear, i64 clear_bytes) {                         \
        let_next_launch_begin();                                                                 \
        await_launch_before();                                                                   \
        rank_few<SOURCE>(keys, count, rows, padding_idx, keys_out, positions_out, owners,        \
                         {clear, clear_bytes, 0, 1});                                            \
    }

#define REDUCED(NAME, TYPE, VECTOR, AHEAD)                                                       \
    extern "C" __global__ void __launch_bounds__(256) reduce_vector_##NAME(                      \
        const TYPE* upstream, i64 row_stride, const u32* keys, const u32* positions, i64 count,  \
        i64 rows, i64 width, i64 length, i64 shift, TYPE* gradient, Wide<TYPE>::type* parts,     \
        u32* owners, i64 by_frequency) {                                                         \
        await_launch_before();                                                                   \
        reduce<TYPE, VECTOR, AHEAD>(upstream, row_stride, keys, positions, count, rows, width,   \
                                    length, shift, gradient, parts, owners, by_frequency);       \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) reduce_##NAME(                             \
        const TYPE* upstream, i64 row_stride, const u32* keys, const u32* positions, i64 count,  \
        i64 rows, i64 width, i64 length, i64 shift, TYPE* gradient, Wide<TYPE>::type* parts,     \
        u32* owners, i64 by_frequency) {                                                         \
        await_launch_before();                                                                   \
        reduce<TYPE, 1, sizeof(TYPE) == 8 ? 2 : 4>(                                              \
            upstream, row_stride, keys, positions, count, rows, width, length, shift, gradient,  \
            parts, owners, by_frequency);                                                        \
    }                                                                                            \
    extern "C" __global__ void __launch_bounds__(DOWN * ACROSS) combine_##NAME(                  \
        const u32* keys, i64 count, i64 width, i64 length, TYPE* gradient,                       \
        const Wide<TYPE>::type* parts, const u32* owners, i64 by_frequency) {                    \
        await_launch_before();                                                                   \
        combine<TYPE>(keys, count, width, length, gradient, parts, owners, by_frequency);        \
    }

INDEXED(int32, int)
INDEXED(int64, i64)
SORTED(key, u32, 4)
SORTED(key, u32, 16)
REDUCED(float32, float, 4, 8)
REDUCED(float64, double, 2, 2)
REDUCED(float16, half16, 8, 8)
REDUCED(bfloat16, bfloat16, 8, 8)

extern "C" __global__ void __launch_bounds__(THREADS) add_up_digits(
    u32* counts, u32* totals, i64 blocks, i64 bins, char* clear, i64 clear_bytes, i64 share,
    i64 shares) {
    let_next_launch_begin();
    await_launch_before();
    add_up(counts, totals, blocks, bins, {clear, clear_bytes, share, shares});
}

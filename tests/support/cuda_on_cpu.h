// Runs embedding.cu on a CPU: each CUDA thread is a fiber, blocks run one after another, and warps
// and blocks wait for each other where the kernels say so. Nothing here is fast or parallel; races
// between blocks are not found.

#pragma once
#define EMULATED 1
#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ucontext.h>
#include <vector>

using std::fabs;
using std::pow;
using std::sqrt;

struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct Place { unsigned x, y, z; };
static Place threadIdx, blockIdx, blockDim, gridDim;

struct Meeting { int wanted = 0, arrived = 0; long turn = 0; };
struct Fiber { ucontext_t context; std::vector<char> stack; bool done = false; };
static std::vector<Fiber> fibers;
static std::vector<Meeting> warps;
static Meeting whole_block;
static ucontext_t scheduler;
static uint64_t slots[64][32];

inline void rest() { swapcontext(&fibers[threadIdx.x].context, &scheduler); }
inline void close_if_full(Meeting& meeting) {
    if (meeting.arrived && meeting.arrived >= meeting.wanted) { meeting.arrived = 0; ++meeting.turn; }
}
inline void meet(Meeting& meeting) {
    long turn = meeting.turn;
    ++meeting.arrived;
    close_if_full(meeting);
    while (meeting.turn == turn) rest();
}
inline void __syncthreads() { meet(whole_block); }
inline void __syncwarp() { meet(warps[threadIdx.x / 32]); }

template <typename T> T exchange(T own, int from) {
    uint64_t* slot = slots[threadIdx.x / 32];
    std::memcpy(&slot[threadIdx.x % 32], &own, sizeof(T));
    __syncwarp();
    T other;
    std::memcpy(&other, &slot[from], sizeof(T));
    __syncwarp();
    return other;
}
template <typename T> T __shfl_sync(unsigned, T own, int lane, int width = 32) {
    return exchange(own, (threadIdx.x & 31 & ~(width - 1)) | (lane & (width - 1)));
}
template <typename T> T __shfl_xor_sync(unsigned, T own, int mask) {
    return exchange(own, (threadIdx.x % 32) ^ mask);
}
template <typename T> T __shfl_up_sync(unsigned, T own, int by) {
    int lane = threadIdx.x % 32;
    return exchange(own, lane >= by ? lane - by : lane);
}
inline unsigned __ballot_sync(unsigned, bool own) {
    uint64_t* slot = slots[threadIdx.x / 32];
    slot[threadIdx.x % 32] = own;
    __syncwarp();
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane) votes |= unsigned(slot[lane] != 0) << lane;
    __syncwarp();
    return votes;
}
inline int __syncthreads_count(bool own) {
    static int tally;
    if (threadIdx.x == 0) tally = 0;
    __syncthreads();
    tally += own;
    __syncthreads();
    int found = tally;
    __syncthreads();
    return found;
}
inline float __saturatef(float x) { return x >= 0 ? std::min(x, 1.0f) : 0.0f; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }
template <typename T> void __stcs(T* at, T value) { *at = value; }
template <typename T, typename U> T atomicAdd(T* at, U more) {
    T before = *at;
    *at = before + T(more);
    return before;
}
template <typename T, typename U> T atomicExch(T* at, U next) {
    T before = *at;
    *at = T(next);
    return before;
}
inline void __threadfence_system() {}
inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline double __longlong_as_double(long long bits) { double x; std::memcpy(&x, &bits, 8); return x; }

inline float from_half(unsigned short bits) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return float(half);
}
inline unsigned short to_half(float x) {
    _Float16 half = _Float16(x);
    unsigned short bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}
inline unsigned short to_bfloat(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return (unsigned short)(bits >> 16 | 0x40);
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A kernel's integers and doubles travel in registers and stack slots of their own (x86-64 and
// AArch64), so that one signature calls them all; none has more than 20 integers and 2 doubles.
typedef long long Word;
typedef void (*Kernel)(Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word,
                       Word, Word, Word, Word, Word, Word, Word, double, double);
static Kernel kernel;
static Word words[20];
static double doubles[2];

inline void begin() {
    Word* w = words;
    kernel(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13],
           w[14], w[15], w[16], w[17], w[18], w[19], doubles[0], doubles[1]);
    unsigned me = threadIdx.x;
    fibers[me].done = true;
    --warps[me / 32].wanted;
    --whole_block.wanted;
    close_if_full(warps[me / 32]);
    close_if_full(whole_block);
    for (;;) rest();
}

extern "C" void emulate(void* function, const unsigned* grid, unsigned block, const Word* integers,
                        int integer_count, const double* numbers, int number_count) {
    kernel = Kernel(function);
    std::copy(integers, integers + integer_count, words);
    std::copy(numbers, numbers + number_count, doubles);
    gridDim = {grid[0], grid[1], 1};
    blockDim = {block, 1, 1};
    fibers.resize(block);
    for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x) {
            warps.assign((block + 31) / 32, Meeting{});
            whole_block = Meeting{int(block), 0, 0};
            for (unsigned i = 0; i < block; ++i) {
                Fiber& fiber = fibers[i];
                fiber.stack.resize(1 << 16);
                fiber.done = false;
                getcontext(&fiber.context);
                fiber.context.uc_stack.ss_sp = fiber.stack.data();
                fiber.context.uc_stack.ss_size = fiber.stack.size();
                fiber.context.uc_link = nullptr;
                makecontext(&fiber.context, begin, 0);
                ++warps[i / 32].wanted;
            }
            for (unsigned running = block; running;) {
                running = 0;
                for (unsigned i = 0; i < block; ++i) {
                    if (fibers[i].done) continue;
                    threadIdx = {i, 0, 0};
                    swapcontext(&scheduler, &fibers[i].context);
                    running += !fibers[i].done;
                }
            }
        }
}

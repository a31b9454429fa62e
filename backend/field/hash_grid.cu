// Hash-grid kernels for NVRTC: plain CUDA C++ without a header. The layout is that of layout.py.
//
// Compiled with FEATURES (F) and SMOOTH (0 or 1) defined. Points x are [N, 3], features [L·F, N], u and Jᵀv [3, N];
// shapes holds resolution, offset, size and whether it hashes, of each level. A thread has one point, blockIdx.y is the
// level: levels come one after another, so that a level's table stays in the cache. Every entry is reduced below its
// level's size whatever the point, so no input reaches outside a table.
//
// Gradients of the table are summed as 64-bit integers in units of their own, one of each level: integer sums do not
// depend on their order, so they are the same on every run, which sums of floats by atomics are not.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct Axis {
    u32 cell;
    float low, high, slope;  // weights of the lower and upper corner, and the upper one's derivative by x
};

struct Level {
    float scale;
    u32 resolution, size, hashed;
    u64 offset;
};

__device__ Level level_of(const float* scales, const u32* shapes, u32 level) {
    const u32* shape = shapes + 4 * level;
    return {scales[level], shape[0], shape[2], shape[3], shape[1]};
}

__device__ Axis locate(float x, float scale) {
    const float position = fmaf(x, scale, 0.5f);
    const float cell = floorf(position);
    float high = position - cell;
    float slope = scale;
    if (SMOOTH) {
        slope = scale * 6.0f * high * (1.0f - high);
        high = high * high * (3.0f - 2.0f * high);
    }
    return {(u32)(int)cell, 1.0f - high, high, slope};
}

// Entry of a corner; bit 0 of its number is x, bit 1 y, bit 2 z.
__device__ u32 entry_of(const Axis* axes, const Level& level, u32 corner) {
    const u32 x = axes[0].cell + (corner & 1u);
    const u32 y = axes[1].cell + (corner >> 1 & 1u);
    const u32 z = axes[2].cell + (corner >> 2);
    if (level.hashed) {
        return (x ^ y * 2654435761u ^ z * 805459861u) & (level.size - 1u);
    }
    const u32 entry = x + y * level.resolution + z * (level.resolution * level.resolution);
    return entry < level.size ? entry : entry % level.size;
}

__device__ float along(const Axis& axis, u32 upper) { return upper ? axis.high : axis.low; }

__device__ float weight_of(const Axis* axes, u32 corner) {
    return along(axes[0], corner & 1u) * along(axes[1], corner >> 1 & 1u) * along(axes[2], corner >> 2);
}

// Derivative of a corner's weight by x, y and z, times the slopes.
__device__ void slopes_of(const Axis* axes, u32 corner, float* slopes) {
    const float x = along(axes[0], corner & 1u), y = along(axes[1], corner >> 1 & 1u), z = along(axes[2], corner >> 2);
    slopes[0] = (corner & 1u ? axes[0].slope : -axes[0].slope) * y * z;
    slopes[1] = (corner >> 1 & 1u ? axes[1].slope : -axes[1].slope) * x * z;
    slopes[2] = (corner >> 2 ? axes[2].slope : -axes[2].slope) * x * y;
}

__device__ void locate_all(const float* x, u64 point, float scale, Axis* axes) {
    for (u32 axis = 0; axis < 3; ++axis) {
        axes[axis] = locate(x[3 * point + axis], scale);
    }
}

__device__ void add(i64* sum, float value, float unit) {
    atomicAdd((u64*)sum, (u64)__float2ll_rn(value * unit));
}

// Features [L·F, N].
extern "C" __global__ void encode(const float* x, const float* params, const float* scales, const u32* shapes,
                                  float* out, i64 points, i64 levels) {
    const i64 point = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const u32 index = blockIdx.y;
    if (point >= points) return;
    float sums[FEATURES] = {};
    if (index < levels) {
        const Level level = level_of(scales, shapes, index);
        const float* table = params + level.offset * FEATURES;
        Axis axes[3];
        locate_all(x, point, level.scale, axes);
        for (u32 corner = 0; corner < 8; ++corner) {
            const float weight = weight_of(axes, corner);
            const float* values = table + (u64)entry_of(axes, level, corner) * FEATURES;
            for (u32 f = 0; f < FEATURES; ++f) sums[f] = fmaf(weight, values[f], sums[f]);
        }
    }
    for (u32 f = 0; f < FEATURES; ++f) out[((i64)index * FEATURES + f) * points + point] = sums[f];
}

// Sums [P], in units, of the table's gradient from that of the features [L·F, N].
extern "C" __global__ void encode_backward(const float* x, const float* scales, const u32* shapes, const float* units,
                                           const float* gradient, i64* sums, i64 points) {
    const i64 point = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const u32 index = blockIdx.y;
    if (point >= points) return;
    const Level level = level_of(scales, shapes, index);
    const float unit = units[index];
    Axis axes[3];
    locate_all(x, point, level.scale, axes);
    float own[FEATURES];
    for (u32 f = 0; f < FEATURES; ++f) own[f] = gradient[((i64)index * FEATURES + f) * points + point];
    for (u32 corner = 0; corner < 8; ++corner) {
        const float weight = weight_of(axes, corner);
        i64* into = sums + (level.offset + entry_of(axes, level, corner)) * FEATURES;
        for (u32 f = 0; f < FEATURES; ++f) add(into + f, weight * own[f], unit);
    }
}

// Jᵀv [3, N] for v [L·F, N]; one thread has all levels of its point.
extern "C" __global__ void pull(const float* x, const float* params, const float* scales, const u32* shapes,
                                const float* v, float* out, i64 points, i64 levels) {
    const i64 point = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (point >= points) return;
    float total[3] = {};
    for (u32 index = 0; index < levels; ++index) {
        const Level level = level_of(scales, shapes, index);
        const float* table = params + level.offset * FEATURES;
        Axis axes[3];
        locate_all(x, point, level.scale, axes);
        float own[FEATURES];
        for (u32 f = 0; f < FEATURES; ++f) own[f] = v[((i64)index * FEATURES + f) * points + point];
        for (u32 corner = 0; corner < 8; ++corner) {
            const float* values = table + (u64)entry_of(axes, level, corner) * FEATURES;
            float pulled = 0.0f, slopes[3];
            for (u32 f = 0; f < FEATURES; ++f) pulled = fmaf(own[f], values[f], pulled);
            slopes_of(axes, corner, slopes);
            for (u32 axis = 0; axis < 3; ++axis) total[axis] = fmaf(slopes[axis], pulled, total[axis]);
        }
    }
    for (u32 axis = 0; axis < 3; ++axis) out[axis * points + point] = total[axis];
}

// Gradients of pull for u [3, N]: sums [P], in units, of the table, and pushed = J·u [L·F, N] of v.
extern "C" __global__ void pull_backward(const float* x, const float* params, const float* scales, const u32* shapes,
                                         const float* units, const float* v, const float* u, i64* sums, float* pushed,
                                         i64 points, i64 levels) {
    const i64 point = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const u32 index = blockIdx.y;
    if (point >= points) return;
    float totals[FEATURES] = {};
    if (index < levels) {
        const Level level = level_of(scales, shapes, index);
        const float unit = units[index];
        Axis axes[3];
        locate_all(x, point, level.scale, axes);
        float own[FEATURES];
        for (u32 f = 0; f < FEATURES; ++f) own[f] = v[((i64)index * FEATURES + f) * points + point];
        for (u32 corner = 0; corner < 8; ++corner) {
            float slopes[3];
            slopes_of(axes, corner, slopes);
            const float weight = slopes[0] * u[point] + slopes[1] * u[points + point] + slopes[2] * u[2 * points + point];
            const u64 entry = (level.offset + entry_of(axes, level, corner)) * FEATURES;
            for (u32 f = 0; f < FEATURES; ++f) {
                totals[f] = fmaf(weight, params[entry + f], totals[f]);
                add(sums + entry + f, weight * own[f], unit);
            }
        }
    }
    for (u32 f = 0; f < FEATURES; ++f) pushed[((i64)index * FEATURES + f) * points + point] = totals[f];
}

// From sums in units to the gradient [P]; a unit is a power of two, so nothing is rounded twice.
extern "C" __global__ void finish(const i64* sums, const u32* shapes, const float* units, float* out) {
    const u32 index = blockIdx.y;
    const u64 first = (u64)shapes[4 * index + 1] * FEATURES, count = (u64)shapes[4 * index + 2] * FEATURES;
    const u64 here = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (here >= count) return;
    out[first + here] = (float)sums[first + here] / units[index];
}

/* Runs a network whose weights are mostly zero on a batch of samples.

   A tile holds T samples side by side: an activation is T floats, and a map lies as (channel, row, column, sample) with
   a ring of zeros around its rows and columns, so that a convolution needs no test at its border. A convolution is, for
   each output channel, a list of values and of distances from the output's place to what they multiply; a linear layer
   is a convolution of one pixel. Sums stay in registers over a whole list. */

#include <pthread.h>
#include <stdint.h>
#include <string.h>

typedef float V __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(32), may_alias));
#define LANES 8
#define INLINE static inline __attribute__((always_inline))

enum { CONVOLVE, ADD, SCALE, MAXIMUM, MEAN, PICK };

typedef struct {
    int32_t channels, height, width, ring;
    int64_t at; /* of its first float, for one sample */
} Map;

typedef struct {
    int32_t kind, source, added, target; /* maps; added is -1 if nothing is */
    int32_t relu, height, width, stride, padding; /* height, width: of a pool's window */
    const int32_t *starts;               /* of each output channel's list; of PICK, the source channel or -1 */
    const int32_t *distances;            /* in samples' floats: times T */
    const float *values;                 /* of SCALE, a factor for each channel */
    const float *bias;
} Step;

typedef struct {
    int32_t steps, maps, samples; /* samples: T */
    int32_t inputs, outputs;      /* floats that go in and out for each sample */
    int32_t first, last;          /* the maps that they are read to and written from */
    int32_t used;                 /* how many inputs are read */
    const int32_t *read;          /* which ones */
    const int32_t *seats;         /* where each goes, in the first map */
    int64_t floats;               /* of all maps, for one sample */
    const Step *step;
    const Map *map;
} Program;

INLINE V zero(void) { return (V){0}; }
INLINE V broadcast(float value) { return value - zero(); }
INLINE V load(const float *from) { return *(const V *)from; }
INLINE void store(float *to, V value) { *(V *)to = value; }
/* The larger of two; not a number if either is none. */
INLINE V larger(V one, V other) {
    const I second = (other > one) | (other != other);
    return (V)((second & (I)other) | (~second & (I)one));
}

INLINE int64_t row_of(const Map *map) { return map->width + 2 * map->ring; }
INLINE int64_t plane_of(const Map *map) { return row_of(map) * (map->height + 2 * map->ring); }
/* Where a pixel of the first channel lies, in activations. */
INLINE int64_t seat(const Map *map, int64_t y, int64_t x) { return map->at + (y + map->ring) * row_of(map) + x + map->ring; }

/* One output channel at P neighbouring pixels. N vectors hold the samples; U sums for each let additions overlap. */
INLINE void sums(const int P, const int N, const int U, const float *in, int64_t between, const Step *step, int channel,
                 const float *added, float *out) {
    const int T = N * LANES;
    V sum[8];
    const V bias = broadcast(step->bias[channel]);
#pragma GCC unroll 8
    for (int k = 0; k < U * P * N; k++) sum[k] = k < P * N ? bias : zero();
    int entry = step->starts[channel];
    const int end = step->starts[channel + 1];
    const int32_t *distances = step->distances;
    const float *values = step->values;
    for (; entry + U <= end; entry += U) {
#pragma GCC unroll 8
        for (int u = 0; u < U; u++) {
            const float *from = in + (int64_t)distances[entry + u] * T;
            const V value = broadcast(values[entry + u]);
#pragma GCC unroll 8
            for (int k = 0; k < P * N; k++) sum[u * P * N + k] += value * load(from + (k / N) * between + (k % N) * LANES);
        }
    }
    for (; entry < end; entry++) {
        const float *from = in + (int64_t)distances[entry] * T;
        const V value = broadcast(values[entry]);
#pragma GCC unroll 8
        for (int k = 0; k < P * N; k++) sum[k] += value * load(from + (k / N) * between + (k % N) * LANES);
    }
#pragma GCC unroll 8
    for (int u = 1; u < U; u++)
#pragma GCC unroll 8
        for (int k = 0; k < P * N; k++) sum[k] += sum[u * P * N + k];
#pragma GCC unroll 8
    for (int k = 0; k < P * N; k++) {
        V value = sum[k];
        if (added) value += load(added + k * LANES);
        if (step->relu) value = larger(value, zero());
        store(out + k * LANES, value);
    }
}

/* All output channels at P neighbouring pixels. */
INLINE void pixels(const int P, const int N, const int U, float *scratch, const Program *program, const Step *step, int y,
                   int x) {
    const int64_t T = N * LANES;
    const Map *source = program->map + step->source, *target = program->map + step->target;
    const float *in = scratch + T * seat(source, (int64_t)y * step->stride - step->padding,
                                         (int64_t)x * step->stride - step->padding);
    float *out = scratch + T * seat(target, y, x);
    const int64_t plane = T * plane_of(target);
    const Map *beside = step->added < 0 ? 0 : program->map + step->added;
    const float *added = beside ? scratch + T * seat(beside, y, x) : 0;
    const int64_t added_plane = beside ? T * plane_of(beside) : 0;
    for (int channel = 0; channel < target->channels; channel++)
        sums(P, N, U, in, T * step->stride, step, channel, added ? added + channel * added_plane : 0, out + channel * plane);
}

INLINE void convolve(const int N, float *scratch, const Program *program, const Step *step) {
    const Map *target = program->map + step->target;
    for (int y = 0; y < target->height; y++) {
        int x = 0;
        for (; x + 8 / N <= target->width; x += 8 / N) pixels(8 / N, N, 1, scratch, program, step, y, x);
        if (N < 2)
            for (; x + 4 <= target->width; x += 4) pixels(4, N, 2 / N > 0 ? 2 / N : 1, scratch, program, step, y, x);
        if (N < 4)
            for (; x + 2 <= target->width; x += 2) pixels(2, N, 4 / N > 0 ? 4 / N : 1, scratch, program, step, y, x);
        for (; x < target->width; x++) pixels(1, N, N < 4 ? 4 / N : 2, scratch, program, step, y, x);
    }
}

/* The steps other than convolutions: each output activation by itself. */
INLINE V activation(const float *scratch, const Program *program, const Step *step, int channel, int y, int x, int64_t T,
                    int64_t lane) {
    const Map *source = program->map + step->source;
    const float *plane = scratch + T * channel * plane_of(source) + lane;
    switch (step->kind) {
    case SCALE:
        return load(plane + T * seat(source, y, x)) * broadcast(step->values[channel]) + broadcast(step->bias[channel]);
    case PICK: {
        const int32_t from = step->starts[channel];
        if (from < 0) return zero();
        return load(scratch + T * (from * plane_of(source) + seat(source, y * step->stride, x * step->stride)) + lane);
    }
    case MAXIMUM: /* as MEAN */
    case MEAN: {
        V found = broadcast(step->kind == MEAN ? 0.0f : -__builtin_inff());
        for (int i = 0; i < step->height; i++)
            for (int j = 0; j < step->width; j++) {
                const int row = y * step->stride - step->padding + i, column = x * step->stride - step->padding + j;
                if (row < 0 || column < 0 || row >= source->height || column >= source->width) continue;
                const V value = load(plane + T * seat(source, row, column));
                if (step->kind == MEAN)
                    found += value;
                else
                    found = larger(found, value);
            }
        if (step->kind == MEAN) found *= broadcast(1.0f / (step->height * step->width));
        return found;
    }
    default:
        return load(plane + T * seat(source, y, x));
    }
}

static void elsewise(float *scratch, const Program *program, const Step *step) {
    const int64_t T = program->samples;
    const Map *target = program->map + step->target;
    const Map *beside = step->added < 0 ? 0 : program->map + step->added;
    for (int channel = 0; channel < target->channels; channel++)
        for (int y = 0; y < target->height; y++)
            for (int x = 0; x < target->width; x++)
                for (int64_t lane = 0; lane < T; lane += LANES) {
                    V value = activation(scratch, program, step, channel, y, x, T, lane);
                    if (beside) value += load(scratch + T * (channel * plane_of(beside) + seat(beside, y, x)) + lane);
                    if (step->relu) value = larger(value, zero());
                    store(scratch + T * (channel * plane_of(target) + seat(target, y, x)) + lane, value);
                }
}

static void carry_out(float *scratch, const Program *program, const Step *step) {
    if (step->kind != CONVOLVE) {
        elsewise(scratch, program, step);
        return;
    }
    switch (program->samples) {
    case 8: convolve(1, scratch, program, step); break;
    case 16: convolve(2, scratch, program, step); break;
    case 32: convolve(4, scratch, program, step); break;
    default: convolve(8, scratch, program, step);
    }
}

typedef struct {
    const Program *program;
    const float *in;
    float *out, *scratch;
    int64_t batch, next, stride; /* samples, the first tile, and how many tiles lie between two of this thread's */
    int32_t from, to;            /* steps */
} Share;

static void read_in(const Share *share, int64_t sample) {
    const Program *program = share->program;
    const int64_t T = program->samples, left = share->batch - sample, count = left < T ? left : T;
    const float *in = share->in + sample * program->inputs;
    for (int used = 0; used < program->used; used++) {
        const float *from = in + program->read[used];
        float *to = share->scratch + T * program->seats[used];
        int64_t lane = 0;
        for (; lane < count; lane++) to[lane] = from[lane * program->inputs];
        for (; lane < T; lane++) to[lane] = 0;
    }
}

static void write_out(const Share *share, int64_t sample) {
    const Program *program = share->program;
    const Map *map = program->map + program->last;
    const int64_t T = program->samples, left = share->batch - sample, count = left < T ? left : T;
    float *out = share->out + sample * program->outputs;
    for (int channel = 0; channel < map->channels; channel++)
        for (int y = 0; y < map->height; y++)
            for (int x = 0; x < map->width; x++, out++) {
                const float *from = share->scratch + T * (channel * plane_of(map) + seat(map, y, x));
                for (int64_t lane = 0; lane < count; lane++) out[lane * program->outputs] = from[lane];
            }
}

static void *work(void *given) {
    const Share *share = given;
    const Program *program = share->program;
    for (int64_t tile = share->next; tile * program->samples < share->batch; tile += share->stride) {
        if (share->from == 0) read_in(share, tile * program->samples);
        for (int at = share->from; at < share->to; at++) carry_out(share->scratch, program, program->step + at);
        if (share->to == program->steps) write_out(share, tile * program->samples);
    }
    return 0;
}

/* Runs steps `from` to `to` for a batch on some threads, each with maps of its own, whose rings are zero. */
void run(const Program *program, const float *in, float *out, float *scratch, int64_t batch, int32_t threads, int32_t from,
         int32_t to) {
    enum { MOST = 64 };
    pthread_t others[MOST];
    Share shares[MOST];
    const int64_t tiles = (batch + program->samples - 1) / program->samples;
    if (threads > tiles) threads = tiles;
    if (threads > MOST) threads = MOST;
    for (int32_t own = 0; own < threads; own++)
        shares[own] = (Share){program, in, out, scratch + own * program->floats * program->samples, batch, own, threads, from, to};
    int started = 1;
    for (; started < threads; started++)
        if (pthread_create(others + started, 0, work, shares + started)) break;
    work(shares);
    for (int32_t own = started; own < threads; own++) work(shares + own); /* no thread was to be had */
    for (int own = 1; own < started; own++) pthread_join(others[own], 0);
}

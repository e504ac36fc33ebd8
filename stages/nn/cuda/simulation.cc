// The fibers and the scheduler behind simulation.h, and the entry that the tests' device calls.
#include "platform.h"
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simulation {
thread_local Place* place;
thread_local void* dynamic_memory;

[[noreturn]] void fail(const char* message) {
    if (place) {
        fprintf(stderr, "simulated kernel, block (%u, %u, %u), thread %u: %s\n", place->block.x, place->block.y,
                place->block.z, place->thread.x, message);
    } else {
        fprintf(stderr, "simulated kernel: %s\n", message);
    }
    abort();
}

enum class State { Runs, WaitsForBlock, Done };

struct Fiber {
    Place place;
    State state;
    u64 exchanges;
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
};

constexpr size_t STACK = 64 * 1024;

struct Machine {
    Fiber fibers[MOST_THREADS];
    Fiber* current;
    char* stacks;
    void* shared;
    u32 shared_bytes;
    Words words[2][MOST_THREADS];
    Trampoline call;
    void* const* arguments;
#if defined(__x86_64__)
    void* scheduler;
#else
    ucontext_t scheduler;
#endif
    Machine() {
        stacks = static_cast<char*>(
            mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        shared = aligned_alloc(1024, MOST_SHARED);
        if (stacks == MAP_FAILED || !shared) fail("there is no memory for its threads");
    }
    ~Machine() {
        munmap(stacks, STACK * MOST_THREADS);
        free(shared);
    }
};
static thread_local Machine* machine;

static void body() {
    machine->call(machine->arguments);
    machine->current->state = State::Done;
}

#if defined(__x86_64__)
extern "C" void taper_switch_fibers(void** from, void* to);
asm(R"(
.text
.type taper_switch_fibers, @function
taper_switch_fibers:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size taper_switch_fibers, . - taper_switch_fibers
)");

static void leave() { taper_switch_fibers(&machine->current->stack_pointer, machine->scheduler); }
static void entry() {
    body();
    leave();
}
static void prepare(Fiber& fiber, char* stack) {
    void** top = reinterpret_cast<void**>(stack + STACK) - 2;
    *top = reinterpret_cast<void*>(&entry);
    fiber.stack_pointer = top - 6;
}
static void resume(Fiber& fiber) { taper_switch_fibers(&machine->scheduler, fiber.stack_pointer); }
#else
static void leave() { swapcontext(&machine->current->context, &machine->scheduler); }
static void prepare(Fiber& fiber, char* stack) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &machine->scheduler;
    makecontext(&fiber.context, body, 0);
}
static void resume(Fiber& fiber) { swapcontext(&machine->scheduler, &fiber.context); }
#endif

u32 lane() { return place->thread.x % LANES; }

void wait_for_block() {
    machine->current->state = State::WaitsForBlock;
    leave();
}

const Words* exchange(const Words& mine) {
    Fiber* fiber = machine->current;
    Words* words = machine->words[fiber->exchanges++ % 2];
    words[fiber->place.thread.x] = mine;
    leave();
    return words + fiber->place.thread.x / LANES * LANES;
}

// Runs a warp until each of its lanes waits for the block or is done.
static void run_warp(u32 first, bool descending) {
    for (bool runs = true; runs;) {
        runs = false;
        for (u32 i = 0; i < LANES; i++) {
            Fiber& fiber = machine->fibers[first + (descending ? LANES - 1 - i : i)];
            if (fiber.state != State::Runs) continue;
            machine->current = &fiber;
            place = &fiber.place;
            resume(fiber);
            runs |= fiber.state == State::Runs;
        }
        const Fiber& model = machine->fibers[first];
        for (u32 i = 1; i < LANES; i++) {
            const Fiber& fiber = machine->fibers[first + i];
            place = &machine->fibers[first + i].place;
            if (fiber.state != model.state || fiber.exchanges != model.exchanges) {
                fail("it does not meet the others of its warp");
            }
        }
    }
}

static void run_block(Index block, Index threads, Index blocks, bool descending) {
    for (u32 i = 0; i < threads.x; i++) {
        Fiber& fiber = machine->fibers[i];
        fiber.place = {{i, 0, 0}, block, threads, blocks};
        fiber.state = State::Runs;
        fiber.exchanges = 0;
        prepare(fiber, machine->stacks + i * STACK);
    }
    // What is not written first is not a number.
    memset(dynamic_memory, 0xff, machine->shared_bytes);
    u32 warps = threads.x / LANES;
    for (;;) {
        for (u32 warp = 0; warp < warps; warp++) {
            run_warp((descending ? warps - 1 - warp : warp) * LANES, descending);
        }
        State state = machine->fibers[0].state;
        for (u32 i = 0; i < threads.x; i++) {
            Fiber& fiber = machine->fibers[i];
            place = &fiber.place;
            if (fiber.state != state) fail("it does not meet the others of its block");
            fiber.state = State::Runs;
        }
        if (state == State::Done) return;
    }
}
}  // namespace simulation

// Launches a kernel and waits for it. Returns 0, or 1 where there is no such kernel, or 2 where it takes other arguments.
extern "C" int taper_simulated_launch(const char* name, const u32* grid, u32 threads, u32 shared, void* const* arguments,
                                      const u32* sizes, u32 count, int descending) {
    using namespace simulation;
    static thread_local Machine the_machine;
    machine = &the_machine;
    dynamic_memory = machine->shared;
    const Kernel* kernel = Kernel::first();
    while (kernel && strcmp(kernel->name, name) != 0) kernel = kernel->next;
    if (!kernel) return 1;
    if (kernel->count != count || memcmp(kernel->sizes, sizes, count * sizeof(u32)) != 0) return 2;
    if (threads == 0 || threads > MOST_THREADS || threads % LANES != 0) fail("a block has whole warps, 32 at most");
    if (shared > MOST_SHARED) fail("there is not so much shared memory");
    machine->shared_bytes = shared;
    machine->call = kernel->call;
    machine->arguments = arguments;
    for (u32 z = 0; z < grid[2]; z++)
        for (u32 y = 0; y < grid[1]; y++)
            for (u32 x = 0; x < grid[0]; x++)
                run_block({x, y, z}, {threads, 1, 1}, {grid[0], grid[1], grid[2]}, descending != 0);
    return 0;
}

#include "kernels.cu"

/* Shows a program a smaller processor than it runs on, at full speed.
 *
 * Libraries choose their kernels by the CPUID instruction. Linux can make that instruction fault
 * (arch_prctl(ARCH_SET_CPUID); the processor needs "cpuid_fault" in /proc/cpuinfo). This library
 * catches the fault, runs the instruction and clears the features above the limit. Without that
 * feature, it answers the undefined instructions by which limit_packages.py replaces CPUID.
 *
 *     cc -O2 -shared -fPIC -o limit_processor.so limit_processor.c
 *     LIMIT_PROCESSOR=avx2 LD_PRELOAD=$PWD/limit_processor.so python ...
 *
 * Limits: sse42, avx2, avx512 (no VNNI), avxvnni (AVX2 with AVX-VNNI), avx512vnni (no AMX).
 * With another limit, or LIMIT_PROCESSOR unset, the program ends with status 97. So it does where CPUID
 * cannot fault and LIMITED_PACKAGES does not name the folder of limit_packages.py, which is put in front
 * of PYTHONPATH.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

/* Bits that stay, by register; leaf 7 has the vector extensions. */
struct limit {
    const char *name;
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax;
};

#define BIT(n) (1u << (n))
#define AVX_1C (BIT(12) | BIT(28) | BIT(29)) /* FMA, AVX, F16C */
#define AVX2_7B BIT(5)
#define AVX512_7B (BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31))
#define AVX512_7C (BIT(1) | BIT(6) | BIT(12) | BIT(14)) /* VBMI, VBMI2, BITALG, VPOPCNTDQ */
#define VNNI512_7C BIT(11)
#define VECTOR_7C (BIT(8) | BIT(9) | BIT(10)) /* GFNI, VAES, VPCLMULQDQ */
/* 4VNNIW, 4FMAPS, VP2INTERSECT, AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8 */
#define NEWER_7D (BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25))
#define AVXVNNI_71A BIT(4)

static const struct limit limits[] = {
    {"sse42", ~AVX_1C, ~(AVX2_7B | AVX512_7B), ~(AVX512_7C | VNNI512_7C | VECTOR_7C), ~NEWER_7D, 0},
    {"avx2", ~0u, ~AVX512_7B, ~(AVX512_7C | VNNI512_7C | VECTOR_7C), ~NEWER_7D, 0},
    {"avxvnni", ~0u, ~AVX512_7B, ~(AVX512_7C | VNNI512_7C | VECTOR_7C), ~NEWER_7D, AVXVNNI_71A},
    {"avx512", ~0u, ~0u, ~(AVX512_7C | VNNI512_7C | VECTOR_7C), ~NEWER_7D, 0},
    {"avx512vnni", ~0u, ~0u, ~0u, ~NEWER_7D, 0},
};
static const struct limit *chosen;
static int caught; /* SIGSEGV, by which CPUID itself faults, or SIGILL */
static uint8_t second; /* byte of the instruction that is answered; the first is 0f */
static int (*set_action)(int, const struct sigaction *, struct sigaction *);
static struct sigaction own, theirs; /* what the signal does, and what the program thinks it does */

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    if (code[0] != 0x0f || code[1] != second) { /* not CPUID: a fault of the program itself */
        if (theirs.sa_flags & SA_SIGINFO)
            theirs.sa_sigaction(number, info, context);
        else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN)
            theirs.sa_handler(number);
        else
            set_action(number, &theirs, NULL); /* back to the instruction, which ends the program */
        return;
    }
    uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX];
    uint32_t a = leaf, b, c = part, d;
    if (caught == SIGSEGV) syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (caught == SIGSEGV) syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 1) {
        c &= chosen->leaf1_ecx;
    } else if (leaf == 7 && part == 0) {
        b &= chosen->leaf7_ebx, c &= chosen->leaf7_ecx, d &= chosen->leaf7_edx;
    } else if (leaf == 7 && part == 1) {
        a &= chosen->leaf7_1_eax, b = c = d = 0;
    } else if (leaf == 7 || leaf == 0x1d || leaf == 0x1e || leaf == 0x24) { /* AMX, AVX10 */
        a = b = c = d = 0;
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

/* Python's faulthandler, for one, asks for the signal: it gets those that are not CPUID's. */
int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    if (!set_action) set_action = dlsym(RTLD_NEXT, "sigaction");
    if (number != caught || !chosen) return set_action(number, action, old);
    if (old) *old = theirs;
    if (action) theirs = *action;
    return 0;
}

/* Lets Python import from a folder first. */
static void import_from(const char *packages) {
    const char *path = getenv("PYTHONPATH");
    char all[8192];
    if (!packages) {
        fprintf(stderr, "LIMIT_PROCESSOR: CPUID cannot fault here, and LIMITED_PACKAGES is not set\n");
        _exit(97);
    }
    if (path && !strncmp(path, packages, strlen(packages))) return;
    snprintf(all, sizeof all, "%s%s%s", packages, path ? ":" : "", path ? path : "");
    setenv("PYTHONPATH", all, 1);
}

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("LIMIT_PROCESSOR");
    const struct limit *found = NULL;
    for (size_t k = 0; name && k < sizeof limits / sizeof *limits; k++)
        if (!strcmp(name, limits[k].name)) found = &limits[k];
    if (!found) {
        fprintf(stderr, "LIMIT_PROCESSOR=%s: no such limit\n", name ? name : "");
        _exit(97);
    }
    int faults = !syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1); /* fails where it cannot fault */
    if (!faults) import_from(getenv("LIMITED_PACKAGES"));
    own.sa_sigaction = on_fault;
    own.sa_flags = SA_SIGINFO | SA_NODEFER;
    caught = faults ? SIGSEGV : SIGILL, second = faults ? 0xa2 : 0x0b;
    sigaction(caught, &own, &theirs);
    if (faults) syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    chosen = found;
}

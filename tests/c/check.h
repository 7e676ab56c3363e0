/*
 * check.h - how a program that goes through seeded cases tells of a finding:
 * by the seed with which it can be had again.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The exit status where an instruction set is lacking. */
#define LACKING 77

static uint64_t seed_of_case;

static void check_at(const char *file, int line, bool holds, const char *what)
{
    if (holds)
        return;
    printf("FINDING: seed %llu, %s:%d: not %s\n",
           (unsigned long long)seed_of_case, file, line, what);
    exit(1);
}

#define CHECK(condition) check_at(__FILE__, __LINE__, condition, #condition)

#endif /* CHECK_H */

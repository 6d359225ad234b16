/* Carries packets between network namespaces, each with a TUN device of its own, and spoils directions as it is told.

   Arguments: a seed, and the namespaces by name; the n-th has the address 10.77.0.n. On standard input, a line each:

       shape FROM TO CUT LOSS TWICE DELAY JITTER    from now on; per million, and microseconds; places count from 0
       reset FROM TO MILLISECONDS                   who sends anything by TCP within that time is told that nobody is there
       done                                         answers "done" once all before it is so

   It ends with its input. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PLACES_MAX = 64, PACKET_BYTES_MAX = 65536, WAITING_MAX = 1 << 16, BURST = 32 };

struct link {
    int cut;
    uint64_t loss, twice; /* of a million */
    int64_t delay, jitter; /* microseconds */
    int64_t reset_until;
};

struct packet {
    int64_t due;
    uint64_t number;
    int to;
    size_t length;
    uint8_t *bytes;
};

static struct link links[PLACES_MAX][PLACES_MAX];
static struct pollfd files[PLACES_MAX + 1]; /* the last is standard input */
static int places;
static struct packet waiting[WAITING_MAX]; /* a heap: who is due first comes first */
static size_t waits;
static uint64_t numbers, luck;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static uint64_t draw(uint64_t below) {
    luck ^= luck << 13;
    luck ^= luck >> 7;
    luck ^= luck << 17;
    return below == 0 ? 0 : luck % below;
}

static int is_before(const struct packet *one, const struct packet *other) {
    return one->due != other->due ? one->due < other->due : one->number < other->number;
}

static void swap(size_t one, size_t other) {
    struct packet held = waiting[one];
    waiting[one] = waiting[other];
    waiting[other] = held;
}

static void push(struct packet packet) {
    size_t at = waits++;
    waiting[at] = packet;
    while (at > 0 && is_before(&waiting[at], &waiting[(at - 1) / 2])) {
        swap(at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static struct packet pop(void) {
    struct packet first = waiting[0];
    waiting[0] = waiting[--waits];
    for (size_t at = 0, least;; at = least) {
        least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < waits; child++)
            if (is_before(&waiting[child], &waiting[least])) least = child;
        if (least == at) return first;
        swap(at, least);
    }
}

static void give(int to, const uint8_t *bytes, size_t length) {
    /* A device whose queue is full loses it, as a switch would. */
    if (write(files[to].fd, bytes, length) < 0) return;
}

static uint32_t sum(const uint8_t *bytes, size_t length, uint32_t so_far) {
    for (size_t at = 0; at + 1 < length; at += 2) so_far += (uint32_t)bytes[at] << 8 | bytes[at + 1];
    return so_far;
}

static void put_sum(uint8_t *at, uint32_t total) {
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    at[0] = (uint8_t)(~total >> 8);
    at[1] = (uint8_t)~total;
}

/* Tells the sender that the connection is gone, in the name of the other end. */
static void refuse(int from, const uint8_t *bytes, size_t length) {
    size_t header = (size_t)(bytes[0] & 15) * 4;
    if (bytes[9] != 6 || length < header + 20 || (bytes[header + 13] & 4) || !(bytes[header + 13] & 16)) return;
    const uint8_t *tcp = bytes + header;
    uint8_t answer[40] = {0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6};
    memcpy(answer + 12, bytes + 16, 4);
    memcpy(answer + 16, bytes + 12, 4);
    memcpy(answer + 20, tcp + 2, 2);
    memcpy(answer + 22, tcp, 2);
    memcpy(answer + 24, tcp + 8, 4); /* what the sender expects next */
    answer[32] = 5 << 4;
    answer[33] = 4;
    put_sum(answer + 10, sum(answer, 20, 0));
    put_sum(answer + 36, sum(answer + 12, 28, 6 + 20));
    give(from, answer, sizeof answer);
}

static void carry(int from, const uint8_t *bytes, size_t length) {
    if (length < 20 || bytes[0] >> 4 != 4) return;
    int to = bytes[19] - 1;
    if (to < 0 || to >= places) return;
    const struct link *link = &links[from][to];
    if (link->reset_until && link->reset_until > now()) {
        refuse(from, bytes, length);
        return;
    }
    if (link->cut || draw(1000000) < link->loss) return;
    for (int copies = draw(1000000) < link->twice ? 2 : 1; copies > 0; copies--) {
        int64_t delay = link->delay + (int64_t)draw((uint64_t)link->jitter);
        if (delay == 0) {
            give(to, bytes, length);
        } else if (waits < WAITING_MAX) {
            struct packet packet = {now() + delay, numbers++, to, length, malloc(length)};
            if (packet.bytes == NULL) die("malloc");
            memcpy(packet.bytes, bytes, length);
            push(packet);
        }
    }
}

static int is_place(int one) { return 0 <= one && one < places; }

static void obey(const char *line) {
    int from = -1, to = -1;
    long long cut, loss, twice, delay, jitter, reset;
    if (sscanf(line, "shape %d %d %lld %lld %lld %lld %lld", &from, &to, &cut, &loss, &twice, &delay, &jitter) == 7 &&
        is_place(from) && is_place(to)) {
        struct link shape = {(int)cut, (uint64_t)loss, (uint64_t)twice, delay, jitter, links[from][to].reset_until};
        links[from][to] = shape;
    } else if (sscanf(line, "reset %d %d %lld", &from, &to, &reset) == 3 && is_place(from) && is_place(to)) {
        links[from][to].reset_until = now() + reset * 1000;
    } else if (strncmp(line, "done", 4) == 0) {
        puts("done");
        fflush(stdout);
    } else {
        fprintf(stderr, "no such order: %s", line);
        exit(1);
    }
}

static void listen_to_orders(void) {
    static char text[1 << 16];
    static size_t length;
    ssize_t got = read(0, text + length, sizeof text - 1 - length);
    if (got <= 0) exit(0);
    length += (size_t)got;
    text[length] = 0;
    char *line = text;
    for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = 0;
        obey(line);
    }
    length -= (size_t)(line - text);
    memmove(text, line, length);
}

static int device(const char *namespace) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    int within = open(path, O_RDONLY | O_CLOEXEC);
    if (within < 0 || setns(within, CLONE_NEWNET) != 0) die(path);
    close(within);
    int file = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq wanted = {.ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    if (file < 0 || ioctl(file, TUNSETIFF, &wanted) != 0) die("/dev/net/tun");
    return file;
}

int main(int count, char **arguments) {
    static uint8_t bytes[PACKET_BYTES_MAX];
    places = count - 2;
    if (places < 1 || places > PLACES_MAX) return 2;
    luck = strtoull(arguments[1], NULL, 10) | 1;
    for (int place = 0; place < places; place++)
        files[place] = (struct pollfd){device(arguments[place + 2]), POLLIN, 0};
    files[places] = (struct pollfd){0, POLLIN, 0};
    for (;;) {
        int64_t wait = waits ? (waiting[0].due - now() + 999) / 1000 : -1;
        if (poll(files, (nfds_t)places + 1, waits && wait < 0 ? 0 : (int)wait) < 0) die("poll");
        while (waits && waiting[0].due <= now()) {
            struct packet packet = pop();
            give(packet.to, packet.bytes, packet.length);
            free(packet.bytes);
        }
        for (int place = 0; place < places; place++)
            for (int left = BURST; left > 0 && files[place].revents; left--) {
                ssize_t length = read(files[place].fd, bytes, sizeof bytes);
                if (length < 0) break;
                carry(place, bytes, (size_t)length);
            }
        if (files[places].revents) listen_to_orders();
    }
}

/* What takes what a read begins with: inlet.c, and onward.c where a worker has sent it. */

#ifndef PYGLYN_INLET_H
#define PYGLYN_INLET_H

#include "hot.h"

enum { LARGE = 65536 };         /* as in framing.py */
enum { SEND_SENDER = 22, REG_SEND = 6, MONITOR_P = 19, DEMONITOR_P = 20, ALIAS_SEND = 33 };

typedef struct {
    PyObject_HEAD
    Hot *hot;
    PyObject *begins;           /* what every frame begins with, bytes */
    PyObject *known;            /* control message by the bytes up to its end */
    PyObject *runtime, *peer;   /* `peer`: the name of the node that may send these, None for no matter whose */
    PyObject *named;            /* references of monitors by name that workers have: who watches, and the worker */
    PyObject *links;            /* workers by serial number */
    PyObject *unread, *ways, *find_way, *boundary, *lost;  /* at the hub's end of a link, else NULL: see onward.c */
    PyObject *names, *processes, *aliases, *named_monitors, *node, *serial, *creation;  /* of the runtime */
    Py_ssize_t taken, frames;
    /* While frames are taken: */
    const uint8_t *head;        /* of the run under way, or NULL */
    Py_ssize_t head_size;
    PyObject *mailbox;          /* where that goes, strong; or NULL, and */
    PyObject *link;             /* the link that it goes to, strong, or NULL */
    PyObject *way;              /* that to another node, strong, or NULL */
    const uint8_t *end;         /* of all that was read */
    Py_ssize_t more;            /* frames behind this one that were taken with it, up to */
    const uint8_t *behind;
    Py_ssize_t begin;           /* where the control message begins in the frame */
    bool takes;                 /* and nothing else is taken meanwhile */
    bool sees_system;           /* whether messages of `sys` go there as well */
    Py_ssize_t runs, most;
} Inlet;

typedef enum { FAILED = -1, OTHER = 0, TAKEN = 1 } Outcome;

/* --- inlet.c --- */

/* How many bytes a pid takes here, 0 where there is none of the usual form. */
Py_ssize_t size_of_pid(const uint8_t *at, Py_ssize_t left);
/* Read one term with this tag, a new reference; NULL where it is another, or damaged. */
PyObject *read_one(Inlet *self, const uint8_t **at, const uint8_t *end, int tag);

/* --- onward.c --- */

/* Whether what has this control message, with the name of a node, goes to another node; look for an exception. */
bool goes_on(Inlet *self, PyObject *control);
/* Find the way for it. */
Outcome find_way_on(Inlet *self, PyObject *head, PyObject *control);
/* This one, and those that follow with the same head. */
Outcome send_on(Inlet *self, const uint8_t *body, Py_ssize_t head_size, Py_ssize_t size);
/* It is no way any more: 0, or -1 */
int forget_way(Inlet *self, PyObject *key);
/* An answer, from its first field on, to a call of the node in front of it. */
Outcome answer_on(Inlet *self, const uint8_t *body, const uint8_t *at, const uint8_t *end);
/* MONITOR_P or DEMONITOR_P, from its first field on, of a process of the node in front of it. */
Outcome watch_on(Inlet *self, bool begins, const uint8_t *body, const uint8_t *at, const uint8_t *end);

#endif

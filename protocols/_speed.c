/* The inner loops of the CGI family's codecs: a block of variables to a dictionary.
 *
 * Optional: without this module the codecs do the same in Python, and tests
 * compare the two.  Here is only what goes without saying.  A function returns
 * None for a block that has anything to judge (a name twice, a length that leads
 * out of the block, bytes left over); the codec then looks at it in Python and
 * says what is wrong.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* Front ends send the same few names with every request: their str objects,
 * whose hash is known, are kept.  A peer can only replace entries. */
#define SLOTS 512
#define LONGEST_NAME 64

static PyObject *names[SLOTS];

static PyObject *
name_object(const unsigned char *text, Py_ssize_t size)
{
    uint32_t slot;
    Py_ssize_t at;
    PyObject *name;

    if (size < 1 || size > LONGEST_NAME)
        return PyUnicode_DecodeLatin1((const char *)text, size, NULL);
    slot = (uint32_t)size;
    for (at = 0; at < size; at++) {
        if (text[at] >= 128)
            return PyUnicode_DecodeLatin1((const char *)text, size, NULL);
        slot = slot * 31 + text[at];
    }
    slot = (slot ^ (slot >> 15)) % SLOTS;
    name = names[slot];
    if (name != NULL && PyUnicode_GET_LENGTH(name) == size &&
        memcmp(PyUnicode_1BYTE_DATA(name), text, (size_t)size) == 0)
        return Py_NewRef(name);
    name = PyUnicode_DecodeLatin1((const char *)text, size, NULL);
    if (name != NULL)
        Py_XSETREF(names[slot], Py_NewRef(name));
    return name;
}

/* 1: entered; 0: the name is there already; -1: an exception is set. */
static int
enter(PyObject *environ, const unsigned char *name_text, Py_ssize_t name_size,
      const unsigned char *value_text, Py_ssize_t value_size)
{
    Py_ssize_t before = PyDict_GET_SIZE(environ);
    PyObject *value, *name = name_object(name_text, name_size);
    int outcome = -1;

    if (name == NULL)
        return -1;
    value = PyUnicode_DecodeLatin1((const char *)value_text, value_size, NULL);
    if (value != NULL) {
        if (PyDict_SetItem(environ, name, value) == 0)
            outcome = PyDict_GET_SIZE(environ) > before;
        Py_DECREF(value);
    }
    Py_DECREF(name);
    return outcome;
}

/* What a reader does with the next pair: 1 goes on, 0 gives up, -1 raises. */
typedef int (*reader)(PyObject *environ, const unsigned char **at, const unsigned char *end);

static PyObject *
read_block(PyObject *block, reader next)
{
    const unsigned char *at, *end;
    PyObject *environ;

    if (!PyBytes_CheckExact(block)) {
        PyErr_SetString(PyExc_TypeError, "the block must be bytes");
        return NULL;
    }
    at = (const unsigned char *)PyBytes_AS_STRING(block);
    end = at + PyBytes_GET_SIZE(block);
    environ = PyDict_New();
    while (environ != NULL && at < end) {
        int outcome = next(environ, &at, end);
        if (outcome == 1)
            continue;
        Py_CLEAR(environ);
        if (outcome == 0)
            Py_RETURN_NONE;
    }
    return environ;
}

/* FastCGI 1.0 section 3.4: a length takes one byte, or four of which the first has bit 7. */
static int
length_of(const unsigned char **at, const unsigned char *end, Py_ssize_t *length)
{
    const unsigned char *text = *at;

    if (text == end)
        return 0;
    if (text[0] < 128) {
        *length = text[0];
        *at = text + 1;
        return 1;
    }
    if (end - text < 4)
        return 0;
    *length = (Py_ssize_t)(text[0] & 127) << 24 | (Py_ssize_t)text[1] << 16 |
              (Py_ssize_t)text[2] << 8 | (Py_ssize_t)text[3];
    *at = text + 4;
    return 1;
}

static int
next_fastcgi(PyObject *environ, const unsigned char **at, const unsigned char *end)
{
    Py_ssize_t name_size, value_size;
    const unsigned char *name;

    if (!length_of(at, end, &name_size) || !length_of(at, end, &value_size))
        return 0;
    name = *at;
    if (end - name < name_size || end - name - name_size < value_size)
        return 0;
    *at = name + name_size + value_size;
    return enter(environ, name, name_size, name + name_size, value_size);
}

/* The uwsgi protocol: each text after its length, 16 bits, little-endian. */
static int
next_uwsgi(PyObject *environ, const unsigned char **at, const unsigned char *end)
{
    const unsigned char *text = *at;
    const unsigned char *start[2];
    Py_ssize_t size[2];
    int part;

    for (part = 0; part < 2; part++) {
        if (end - text < 2)
            return 0;
        size[part] = text[0] | text[1] << 8;
        start[part] = text + 2;
        if (end - start[part] < size[part])
            return 0;
        text = start[part] + size[part];
    }
    *at = text;
    return enter(environ, start[0], size[0], start[1], size[1]);
}

/* SCGI: each text ends with a NUL. */
static int
next_scgi(PyObject *environ, const unsigned char **at, const unsigned char *end)
{
    const unsigned char *name = *at, *name_end, *value, *value_end;

    name_end = memchr(name, 0, (size_t)(end - name));
    if (name_end == NULL)
        return 0;
    value = name_end + 1;
    value_end = memchr(value, 0, (size_t)(end - value));
    if (value_end == NULL)
        return 0;
    *at = value_end + 1;
    return enter(environ, name, name_end - name, value, value_end - value);
}

static PyObject *
fastcgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_fastcgi);
}

static PyObject *
uwsgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_uwsgi);
}

static PyObject *
scgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_scgi);
}

static PyMethodDef functions[] = {
    {"fastcgi_pairs", fastcgi_pairs, METH_O, "The variables of a FCGI_PARAMS stream, or None."},
    {"uwsgi_pairs", uwsgi_pairs, METH_O, "The variables of a uwsgi block, or None."},
    {"scgi_pairs", scgi_pairs, METH_O, "The variables of an SCGI netstring, or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "protocols._speed",
    .m_doc = "Blocks of variables to dictionaries, compiled; see protocols.pairs.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__speed(void)
{
    return PyModule_Create(&definition);
}

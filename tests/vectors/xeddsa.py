#!/usr/bin/env python3
"""Makes xeddsa.json: known answers for `src/identity/xeddsa.rs`, by other means than the code under test.

Plain Python, nothing imported but the standard library: the Montgomery ladder of RFC 7748 section 5 for public keys,
the point arithmetic of RFC 8032 section 5.1 for signatures, and the signature as libsignal makes it: the private
scalar is not negated, the sign of the Edwards point travels in bit 7 of the last byte. Every case is checked once
more by the verification equation in this file. The seed is fixed, so that the file comes out the same every time.

    python3 tests/vectors/xeddsa.py > tests/vectors/xeddsa.json
"""
import hashlib
import json
import sys

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def stream(label):
    """An endless row of bytes from a label."""
    counter = 0
    while True:
        for byte in hashlib.sha256(f"sotto xeddsa vectors {label} {counter}".encode()).digest():
            yield byte
        counter += 1


def take(source, count):
    return bytes(next(source) for _ in range(count))


# RFC 7748: the u-coordinate of k times a point.
def ladder(k, u):
    x1, x2, z2, x3, z3, swap = u, 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = (k >> t) & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return x2 * pow(z2, P - 2, P) % P


# RFC 8032: extended homogeneous coordinates (X, Y, Z, T).
def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def mul(k, p):
    q = (0, 1, 1, 0)
    while k:
        if k & 1:
            q = add(q, p)
        p = add(p, p)
        k >>= 1
    return q


def encode(p):
    inverse = pow(p[2], P - 2, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def recover_x(y, sign):
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P:
        return None
    return P - x if x & 1 != sign else x


def point(y, sign):
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


BASE = point(4 * pow(5, P - 2, P) % P, 0)


def number(data):
    return int.from_bytes(data, "little")


def scalar_hash(*parts):
    return number(hashlib.sha512(b"".join(parts)).digest()) % L


def clamp(seed):
    return (number(seed) & ~7 & (2**255 - 1)) | 2**254


def sign(private, message, random):
    a = clamp(private)
    public = encode(mul(a, BASE))
    r = scalar_hash(b"\xfe" + b"\xff" * 31, a.to_bytes(32, "little"), message, random)
    commitment = encode(mul(r, BASE))
    h = scalar_hash(commitment, public, message)
    s = bytearray(((h * a + r) % L).to_bytes(32, "little"))
    s[31] |= public[31] & 0x80
    return commitment + bytes(s)


def verify(u, message, signature):
    """s·B = R + h·A with A from the Montgomery key and the sign in the signature."""
    s = bytearray(signature[32:])
    sign_bit = s[31] >> 7
    s[31] &= 0x7F
    y = (u - 1) * pow(u + 1, P - 2, P) % P
    public = point(y, sign_bit)
    r = number(signature[:32])
    commitment = point(r & (2**255 - 1), r >> 255)
    h = scalar_hash(signature[:32], encode(public), message)
    return encode(mul(number(s), BASE)) == encode(add(commitment, mul(h, public)))


def key(u):
    return (b"\x05" + u.to_bytes(32, "little")).hex()


def on_curve(u):
    return pow(u * (u * u + 486662 * u + 1) % P, (P - 1) // 2, P) in (0, 1)


def case(index):
    source = stream(f"case {index}")
    private, random = take(source, 32), take(source, 64)
    u = ladder(clamp(private), 9)
    if index % 2:
        message = b"\x05" + take(source, 32)
    else:
        message = take(source, 1 + next(source) % 80)
    signature = sign(private, message, random)
    assert verify(u, message, signature)
    return {
        "private": private.hex(),
        "public": key(u),
        "message": message.hex(),
        "random": random.hex(),
        "signature": signature.hex(),
        "sign": signature[63] >> 7,
    }


def main():
    # RFC 7748 section 5.2 and RFC 8032 section 7.1 test 1, so that this file is not merely consistent with itself.
    scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"
    basis = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
    product = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    u = ladder(clamp(bytes.fromhex(scalar)), number(bytes.fromhex(basis)) % 2**255)
    assert u.to_bytes(32, "little").hex() == product
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    expected = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert encode(mul(clamp(hashlib.sha512(seed).digest()[:32]), BASE)).hex() == expected
    assert mul(L, BASE)[0] == 0

    low = [0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504,
           39382357235489614581723060781553021112529911719440698176882885853963445705823, P - 1]
    source = stream("twist")
    twist = []
    while len(twist) < 16:
        u = number(take(source, 32)) % P
        if not on_curve(u):
            twist.append(key(u))
    json.dump({
        "about": "made by xeddsa.py; keys are hex, public keys with their type byte 0x05",
        "group_order": L.to_bytes(32, "little").hex(),
        "cases": [case(index) for index in range(96)],
        "low_order": [key(u) for u in low],
        # p … 2^255-1 stand for 0 … 18 a second time; with bit 255 set every number has a second form.
        "non_canonical": [key(P + u) for u in range(19)] + [key(2**255 + u) for u in (0, 1, 9, P - 1)],
        "twist": twist,
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()

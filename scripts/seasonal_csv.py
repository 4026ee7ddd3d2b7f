#!/usr/bin/env python3
"""Prints a made-up CSV: two hourly series with a day, a week, a trend, noise that lasts, and gaps.

usage: seasonal_csv.py [--days 120] [--seed 1]

It is what docs/forecasting.md forecasts, so that its numbers can be had again without any data.
"""
import argparse
import datetime
import math
import random


def rows(days, seed):
    """Yields (time, load, temperature); None where a value is missing."""
    draw = random.Random(seed)
    start = datetime.datetime(2023, 1, 2)
    slow = quick = 0.0
    for hour in range(24 * days):
        time = start + datetime.timedelta(hours=hour)
        day = 2 * math.pi * (hour % 24) / 24
        slow = 0.98 * slow + draw.gauss(0, 0.5)  # weather
        quick = 0.7 * quick + draw.gauss(0, 6)
        temperature = 10 + 4 * math.sin(day - 2) + slow
        work = 1.0 if time.weekday() < 5 else 0.6
        load = 400 + 0.02 * hour + work * (90 * math.sin(day - 1.8) + 40 * math.sin(2 * day)) - 4 * slow + quick
        gap = 24 * 60 <= hour < 24 * 60 + 12  # a meter that was off
        yield (time, None if gap or draw.random() < 0.01 else load, None if draw.random() < 0.01 else temperature)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cell = lambda value: "" if value is None else f"{value:.2f}"
    print("time,load,temperature")
    for time, load, temperature in rows(args.days, args.seed):
        print(f"{time:%Y-%m-%dT%H:%M},{cell(load)},{cell(temperature)}")


if __name__ == "__main__":
    main()

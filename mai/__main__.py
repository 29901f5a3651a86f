"""`python -m mai` is `mai`."""

from mai.cli import main

if __name__ == "__main__":
    main()

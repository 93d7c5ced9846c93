"""python -m modelsurgeon"""

from modelsurgeon.cli import main

main()
